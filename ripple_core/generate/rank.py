"""`python -m ripple_core.generate.rank FD`: one rank but the first of a model that runs on several devices.

It holds the transformers alone, and takes part in their forward calls as rank 0 tells it through the socket FD.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from ripple_core.attention import SavingsReport
from ripple_core.child_process import EXIT_DEVICE_BROKEN, die_with, in_a_line, leave_signals_to_parent
from ripple_core.contract.settings import SharedSettings
from ripple_core.generate.loras import loras_on
from ripple_core.generate.no_memory import is_out_of_memory
from ripple_core.generate.process_group import join_process_group
from ripple_core.generate.rank_messages import (
    Apply,
    Broadcast,
    Broken,
    Done,
    Forward,
    Join,
    PutLoras,
    Remove,
    Start,
    receive,
    send,
)
from ripple_core.integrate import TimeRippleHandle, apply_timeripple, transformers_of
from ripple_core.integrate.context_parallel import connect, split_over_ranks, ulysses_config
from ripple_core.logs import configure_logging

logger = logging.getLogger(__name__)


class _Rank:
    """The state of this process."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._device = torch.device(start.device)
        self._pipe = start.load(start.device)
        self._transformers = transformers_of(self._pipe)
        self._config = ulysses_config(start.size)
        self._loras = ExitStack()
        self._handle: TimeRippleHandle | None = None

    def do(self, message: object) -> Done | None:
        """Carry a message out."""
        match message:
            case Join():
                join_process_group(message, self._start.rank, self._start.size, self._device)
                connect(self._config, self._device)
                for transformer in self._transformers:
                    split_over_ranks(transformer, self._config)
            case PutLoras():
                self._loras.close()
                self._loras.enter_context(loras_on(self._pipe, message.loras, message.folder))
            case Apply():
                self._handle = apply_timeripple(self._pipe, message.config)
            case Remove():
                return Done(self._remove())
            case Forward():
                self._forward(message)
                return None
        return Done()

    def _remove(self) -> SavingsReport:
        assert self._handle is not None
        self._handle.remove()
        for transformer in self._transformers:
            transformer._reset_stateful_cache()
        return self._handle.report()

    @torch.no_grad()
    def _forward(self, message: Forward) -> None:
        transformer = self._transformers[message.transformer]
        inputs = {name: self._received(value) for name, value in message.inputs.items()}
        self._config.context_parallel_config.ulysses_anything = not message.is_even
        if self._handle is not None and message.step is not None:
            self._handle.set_step(message.step.index, message.step.total)
        with _in_context(transformer, message):
            transformer(**inputs)

    def _received(self, value: Any) -> Any:
        if not isinstance(value, Broadcast):
            return value
        tensor = torch.empty(value.shape, dtype=value.dtype, device=self._device)
        dist.broadcast(tensor, src=0)
        return tensor


@contextmanager
def _in_context(transformer: Any, message: Forward) -> Iterator[None]:
    with transformer.cache_context(**vars(message.context)) if message.context else contextlib.nullcontext():
        yield


def main(connection: Connection) -> int:
    """Do as rank 0 says until it closes the connection; 1 when something went wrong, which it is told first."""
    leave_signals_to_parent()
    configure_logging("WARNING", SharedSettings().log_format)
    try:
        start = receive(connection)
        die_with(start.parent)
        rank = _Rank(start)
        send(connection, Done())
        while True:
            answer = rank.do(receive(connection))
            if answer is not None:
                send(connection, answer)
    except (EOFError, ConnectionError):
        return 0
    except torch.AcceleratorError:
        # No failure of the video: another try may find the device in order, or another one.
        logger.critical("the device of a rank is out of order", exc_info=True)
        return EXIT_DEVICE_BROKEN
    except Exception as error:
        logger.exception("a rank failed")
        with contextlib.suppress(OSError):
            send(connection, Broken(in_a_line(error), is_out_of_memory(error)))
        return 1


if __name__ == "__main__":
    # Without the process group's clean-up, which would wait for the other ranks.
    os._exit(main(Connection(int(sys.argv[1]))))
