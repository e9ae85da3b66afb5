"""Times each denoising step."""

import itertools
import time

import torch


class StepClock:
    """Marks the start of the loop and the end of each step; the first one has what prepares the loop in it.

    On a CUDA device the marks are events in its stream: the host runs ahead of the device, and is not made to wait.

    Args:
        device: that the steps run on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Call before the first step, and after each."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            self._times.append(time.monotonic())

    def seconds(self) -> list[float]:
        """Of each step; on CUDA the device must have been waited for."""
        if self._device.type == "cuda":
            return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(self._events)]
        return [after - before for before, after in itertools.pairwise(self._times)]
