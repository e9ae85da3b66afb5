"""One model on several devices of this host, by Ulysses context parallelism.

This process is rank 0 and runs the pipeline as always. The others hold the same transformers and take part in every
forward call of rank 0's, each with its share of the video's tokens and, in self-attention, of the heads. All else
happens here alone: what encodes prompts, draws noise, schedules, decodes, cancels and tries again need not know of
ranks, and they cannot drift apart.

A rank that fails or dies ends the forward call under way with an error, and all ranks; the next video starts them
anew.
"""

import inspect
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any
from weakref import ref

import torch
import torch.distributed as dist
from diffusers.hooks import HookRegistry
from torch import Tensor

from ripple_core.attention import SavingsReport, TimeRippleConfig
from ripple_core.contract.errors import GenerationFailed, ModelLoadFailed, OutOfMemory, WorkerLost
from ripple_core.contract.request import LoraSettings
from ripple_core.generate.no_memory import is_out_of_memory
from ripple_core.generate.process_group import check_heads, devices_from, join_process_group, leave_process_group
from ripple_core.generate.rank_messages import Apply, Broadcast, Forward, Join, Message, PutLoras, Remove
from ripple_core.generate.rank_processes import RankBroke, RankProcesses
from ripple_core.integrate import TimeRippleHandle, apply_timeripple, transformers_of
from ripple_core.integrate.context_parallel import connect, merge_ranks, split_over_ranks, ulysses_config
from ripple_core.integrate.families import family_of
from ripple_core.integrate.step import Step, StepContextHook

logger = logging.getLogger(__name__)

# After which a rank that neither answers nor dies counts as broken.
_TIMEOUT = timedelta(minutes=10)
_WATCH_SECONDS = 1.0
_HOOK_NAME = "timeripple_ranks"


class RankGroup:
    """The other ranks of one model, and its transformers here.

    torch.distributed has one default process group in a process, so one group runs at a time: a video on another
    model's group ends this one, and the next on this one starts it again.
    """

    def __init__(self, size: int, device: torch.device, load: Callable[[str], Any]) -> None:
        """Start the other ranks, which load while this process does.

        Args:
            size: number of ranks, this one included; at least 2.
            device: of this process; with CUDA the others take the ones that follow it.
            load: a function of some module, or a partial of one; given a device, returns a pipeline with the
                transformers.

        Raises:
            ModelLoadFailed: when there are not as many devices.
        """
        self.size = size
        self._devices = devices_from(device, size)
        self._load = load
        self._config = ulysses_config(size)
        self._processes: RankProcesses | None = None
        self._handle: TimeRippleHandle | None = None
        self._loras: PutLoras | None = None
        self._start()

    def attach(self, pipe: Any) -> None:
        """Let the pipeline's transformers run on all ranks from now on; waits until these have loaded.

        Raises:
            ModelLoadFailed: when the heads cannot be shared out evenly, or a rank cannot load; all ranks have ended
                then.
            OutOfMemory: when it does not fit there.
        """
        transformers = transformers_of(pipe)
        try:
            for transformer in transformers:
                check_heads(transformer, self.size)
            self._join()
        except BaseException as error:
            self.close()
            if isinstance(error, torch.OutOfMemoryError):
                raise OutOfMemory(f"The model does not fit on {self.size} devices: {error}") from error
            if isinstance(error, GenerationFailed):
                raise ModelLoadFailed(f"The model cannot run on {self.size} devices: {error}") from error
            raise
        for index, transformer in enumerate(transformers):
            split_over_ranks(transformer, self._config)
            registry = HookRegistry.check_if_exists_or_initialize(transformer)
            # The last one gets the call as it was made.
            registry.register_hook(_OnAllRanks(self, index), _HOOK_NAME)

    def apply(self, pipe: Any, config: TimeRippleConfig) -> "ParallelHandle":
        """`apply_timeripple` on all ranks, which start again if they have ended.

        Raises:
            ValueError: as `apply_timeripple`.
            GenerationFailed: when a rank does not start or fails.
        """
        handle = apply_timeripple(pipe, config)
        try:
            self._ask_idle(Apply(config))
        except BaseException:
            handle.remove()
            raise
        self._handle = handle
        return ParallelHandle(self, handle)

    @contextmanager
    def loras_on(self, loras: Sequence[LoraSettings], folder: Path | None) -> Iterator[None]:
        """What `ripple_core.generate.loras.loras_on` does, on the other ranks.

        Raises:
            GenerationFailed: when a rank does not start or fails.
        """
        if not loras:
            yield
            return
        message = PutLoras(tuple(loras), folder)
        self._ask_idle(message)
        self._loras = message
        try:
            yield
        finally:
            self._loras = None
            # Ranks that have ended, or fail here, start without any.
            if self._processes is not None:
                with suppress(GenerationFailed, torch.OutOfMemoryError):
                    self.ask(PutLoras((), None))

    def step_of(self, timestep: Any) -> Step | None:
        """The denoising step of a forward call whose pipeline does not tell, by its scheduler."""
        return self._handle.step_without_context(timestep) if self._handle else None

    @property
    def pids(self) -> list[int]:
        """Process ids of the other ranks in order; empty when they have ended."""
        return self._processes.pids if self._processes else []

    def close(self) -> None:
        """End the other ranks; does nothing when they have ended."""
        if self._processes is None:
            return
        processes, self._processes = self._processes, None
        processes.end()
        leave_process_group()

    def ask(self, message: Message) -> list[Any]:
        """Send a message to the other ranks, and wait for what each answers.

        Raises:
            GenerationFailed: when one fails or has ended; all have ended then.
            torch.OutOfMemoryError: when that is why one failed.
        """
        try:
            processes = self._living()
            processes.tell(message)
            return processes.answers()
        except (OSError, EOFError, RankBroke) as error:
            raise self.broken(error) from error

    def announce(self, message: Forward, tensors: Sequence[Tensor]) -> None:
        """Make the others take part in the forward call that follows, with these inputs."""
        self._config.context_parallel_config.ulysses_anything = not message.is_even
        self._living().tell(message)
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def broken(self, error: Exception) -> Exception:
        """End all ranks after an error in what they did together.

        Returns:
            What to raise: the error; or, where another rank failed first, torch.OutOfMemoryError, or WorkerLost if it
            died, or GenerationFailed.
        """
        words = self._processes.last_words() if self._processes and not is_out_of_memory(error) else []
        self.close()
        if not words:
            return error
        reason = "; ".join(word.reason for word in words)
        logger.warning("all %d ranks ended: %s", self.size, reason)
        if any(word.is_out_of_memory for word in words):
            return torch.OutOfMemoryError(reason)
        failure = WorkerLost if any(word.died for word in words) else GenerationFailed
        return failure(f"One of the {self.size} processes that generate together failed ({reason}).")

    def _living(self) -> RankProcesses:
        if self._processes is None:
            raise GenerationFailed(f"The {self.size} processes that generate together have ended.")
        return self._processes

    def _ask_idle(self, message: Message) -> None:
        """Ask ranks that are between two videos, of which one may have died since the last one."""
        if self._processes is not None:
            try:
                self.ask(message)
                return
            except GenerationFailed as error:
                logger.warning("the ranks start again: %s", error)
        self._start()
        self._join()
        if self._loras is not None:
            self.ask(self._loras)
        self.ask(message)

    def _start(self) -> None:
        _make_room_for(self)
        self._processes = RankProcesses(self._devices, self._load)

    def _join(self) -> None:
        """Wait until all have loaded; then they and this process become a process group."""
        processes, device = self._living(), self._devices[0]
        try:
            processes.answers()
            with tempfile.TemporaryDirectory(prefix="timeripple-") as folder:
                message = Join(Path(folder) / "rendezvous", _TIMEOUT)
                processes.tell(message)
                join_process_group(message, 0, self.size, device)
                connect(self._config, device)
                processes.answers()
        except (OSError, EOFError, RuntimeError, RankBroke) as error:
            failure = self.broken(error)
            raise failure if failure is not error else GenerationFailed(f"The ranks did not meet: {error}") from error
        Thread(target=_watch, args=(ref(self), ref(processes)), daemon=True).start()


class ParallelHandle:
    """TimeRipple on all ranks of a model, for one video."""

    def __init__(self, group: RankGroup, mine: TimeRippleHandle) -> None:
        self._group = group
        self._mine = mine
        self._reports: list[SavingsReport] | None = None
        self._failure: Exception | None = None

    def remove(self) -> None:
        """Put the stock attention back on all ranks; never fails, and a second call does nothing."""
        self._mine.remove()
        if self._reports is None and self._failure is None:
            try:
                self._reports = self._group.ask(Remove())
            except (GenerationFailed, torch.OutOfMemoryError) as error:
                self._failure = error

    def report(self) -> SavingsReport:
        """What ran on all ranks, after `remove`.

        Raises:
            GenerationFailed: when a rank has failed, so that nobody knows.
            torch.OutOfMemoryError: when that is why.
        """
        if self._failure is not None:
            raise self._failure
        assert self._reports is not None
        return merge_ranks([self._mine.report(), *self._reports])


class _OnAllRanks(StepContextHook):
    """Makes the other ranks take part in a transformer's forward calls."""

    def __init__(self, group: RankGroup, index: int) -> None:
        super().__init__()
        self._group = group
        self._index = index

    def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        """Called by diffusers in the place of `forward`."""
        try:
            self._group.announce(*self._message(module, args, kwargs))
            return self.fn_ref.original_forward(*args, **kwargs)
        except Exception as error:
            failure = self._group.broken(error)
            if failure is error:
                raise
            raise failure from error

    def _message(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Forward, list[Tensor]]:
        arguments = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        del arguments["self"]
        grid = family_of(module).grid(module, arguments)
        is_even = grid is not None and grid.num_tokens % self._group.size == 0
        inputs, tensors = dict(arguments), []
        for name, value in arguments.items():
            if isinstance(value, Tensor):
                tensors.append(value.contiguous())
                inputs[name] = Broadcast(value.shape, value.dtype)
        step = self.current() or self._group.step_of(arguments.get("timestep"))
        return Forward(self._index, inputs, self.state_manager._context, step, is_even), tensors


_current: "Callable[[], RankGroup | None]" = lambda: None  # noqa: E731 - a dead weak reference


def _make_room_for(group: RankGroup) -> None:
    """End the group that runs."""
    global _current  # noqa: PLW0603 - as the process group itself is
    running = _current()
    if running is not None:
        running.close()
    leave_process_group()
    _current = ref(group)


def _watch(group: "ref[RankGroup]", processes: "ref[RankProcesses]") -> None:
    """A collective of NCCL waits for a dead rank until its timeout, and the main thread with it."""
    while (all_live := _all_live(group, processes)) is not None:
        if not all_live:
            leave_process_group()
            return
        # Without a reference that would keep alive what nobody else uses.
        time.sleep(_WATCH_SECONDS)


def _all_live(group: "ref[RankGroup]", processes: "ref[RankProcesses]") -> bool | None:
    """None once the group has others, or is gone."""
    watched, owner = processes(), group()
    if watched is None or owner is None or owner._processes is not watched:
        return None
    return watched.all_live
