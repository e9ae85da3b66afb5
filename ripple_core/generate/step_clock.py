"""Times each denoising step."""

import time

import torch

Mark = float | torch.cuda.Event


class StepClock:
    """Marks the start of the loop and the end of each step; the first one has what prepares the loop in it.

    On a CUDA device the marks are events in its stream: the host runs ahead of the device, and is not made to wait.

    Args:
        device: that the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun: Mark | None = None
        self._steps: list[tuple[Mark, Mark]] = []

    def mark(self) -> None:
        """Call before the first step, and after each."""
        now = self._now()
        if self._begun is not None:
            self._steps.append((self._begun, now))
        self._begun = now

    def skip(self) -> None:
        """Call between two steps: the time since the last mark is of none."""
        self._begun = self._now()

    def seconds(self) -> list[float]:
        """Of each step; on CUDA the device must have been waited for."""
        return [_seconds_between(before, after) for before, after in self._steps]

    def _now(self) -> Mark:
        if self._device.type != "cuda":
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def _seconds_between(before: Mark, after: Mark) -> float:
    if isinstance(before, float) or isinstance(after, float):
        assert isinstance(before, float)
        assert isinstance(after, float)
        return after - before
    return float(before.elapsed_time(after)) / 1000
