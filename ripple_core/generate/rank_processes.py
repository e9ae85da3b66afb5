"""The processes of a model's ranks 1..N - 1, as rank 0 sees them."""

import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ripple_core.generate.rank_messages import Broken, Message, Start, receive, send

# How long one that fails may take to say why.
_LAST_WORDS_SECONDS = 3.0


class RankBroke(Exception):
    """A rank said that it failed; its words are still to be read by `last_words`."""


@dataclass(frozen=True)
class _Process:
    rank: int
    process: subprocess.Popen[bytes]
    connection: Connection


class RankProcesses:
    """Processes that load a model and then do as they are told; they end with this one."""

    def __init__(self, devices: Sequence[torch.device], load: Callable[[str], Any]) -> None:
        """Start them.

        Args:
            devices: of all ranks, rank 0 included.
            load: given a device, returns a pipeline with the transformers; can be pickled.
        """
        self._broken: list[Broken] = []
        self._processes: list[_Process] = []
        self._end = weakref.finalize(self, _end, self._processes)
        for rank, device in list(enumerate(devices))[1:]:
            self._processes.append(_spawn(rank))
            start = Start(rank, len(devices), str(device), load, os.getpid())
            send(self._processes[-1].connection, start)

    @property
    def pids(self) -> list[int]:
        """In order of rank."""
        return [one.process.pid for one in self._processes]

    @property
    def all_live(self) -> bool:
        """Whether none has ended."""
        return all(one.process.poll() is None for one in self._processes)

    def tell(self, message: Message) -> None:
        """Send a message to all.

        Raises:
            OSError: when one has ended.
        """
        for one in self._processes:
            send(one.connection, message)

    def answers(self) -> list[Any]:
        """Wait for what each answers, in order of rank.

        Raises:
            EOFError: when one has ended.
            OSError: the same.
            RankBroke: when one fails.
        """
        return [self._answer(one) for one in self._processes]

    def _answer(self, one: _Process) -> Any:
        answer = receive(one.connection)
        if isinstance(answer, Broken):
            self._broken.append(_named(one, answer))
            raise RankBroke(answer.reason)
        return answer.result

    def last_words(self) -> list[Broken]:
        """Why those that failed, did; waits a moment for the first."""
        ready = wait([one.connection for one in self._processes], timeout=_LAST_WORDS_SECONDS)
        return self._broken + [word for one in self._processes if one.connection in ready for word in _last_words(one)]

    def end(self) -> None:
        """Kill them; a second call does nothing."""
        self._end()


def _spawn(rank: int) -> _Process:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "ripple_core.generate.rank", str(theirs.fileno())]
        # Not multiprocessing, which lets no daemon such as a worker's child have children.
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return _Process(rank, process, Connection(ours.detach()))


def _last_words(one: _Process) -> list[Broken]:
    try:
        while True:
            message = receive(one.connection)
            if isinstance(message, Broken):
                return [_named(one, message)]
    except (EOFError, OSError):
        return [Broken(f"rank {one.rank} ended with exit code {one.process.wait()}", died=True)]


def _named(one: _Process, broken: Broken) -> Broken:
    return replace(broken, reason=f"rank {one.rank}: {broken.reason}")


def _end(processes: list[_Process]) -> None:
    for one in processes:
        one.connection.close()
        one.process.kill()
    for one in processes:
        one.process.wait()
