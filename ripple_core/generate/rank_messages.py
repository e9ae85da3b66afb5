"""What rank 0 sends to the other ranks of a model, and what they answer."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.hooks.hooks import CacheContext

from ripple_core.attention import TimeRippleConfig
from ripple_core.contract.request import LoraSettings
from ripple_core.integrate.step import Step


@dataclass(frozen=True)
class Start:
    """First of all: who the rank is, and what it loads.

    Attributes:
        rank: 1..size - 1.
        size: number of ranks, rank 0 included.
        device: of this rank.
        load: given the device, returns a pipeline with the transformers.
        parent: process id of rank 0, with which the others end.
    """

    rank: int
    size: int
    device: str
    load: Callable[[str], Any]
    parent: int


@dataclass(frozen=True)
class Join:
    """Enter the process group that meets at a file; collectives that take longer than the timeout fail."""

    rendezvous: Path
    timeout: timedelta


@dataclass(frozen=True)
class PutLoras:
    """Put these LoRAs on instead of those that are on, for one video."""

    loras: tuple[LoraSettings, ...]
    folder: Path | None


@dataclass(frozen=True)
class Apply:
    """Put TimeRipple on, for one video."""

    config: TimeRippleConfig


@dataclass(frozen=True)
class Remove:
    """Take TimeRipple off; the answer is its report."""


@dataclass(frozen=True)
class Broadcast:
    """Stands for a tensor that the process group brings, in the order of the inputs."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class Forward:
    """Take part in one forward call; there is no answer.

    Attributes:
        transformer: its number in the pipeline.
        inputs: arguments by name, tensors of the device replaced.
        context: what the pipeline told of the call.
        step: of the denoising loop, if it is known.
        is_even: whether every rank gets as many video tokens.
    """

    transformer: int
    inputs: dict[str, Any]
    context: CacheContext | None
    step: Step | None
    is_even: bool


Message = Start | Join | PutLoras | Apply | Remove | Forward


@dataclass(frozen=True)
class Done:
    """A message was carried out."""

    result: Any = None


@dataclass(frozen=True)
class Broken:
    """The rank ends, because of this; a rank that dies says nothing, and then it is rank 0 that makes it up."""

    reason: str
    is_out_of_memory: bool = False
    died: bool = False


def send(connection: Connection, message: Message | Done | Broken) -> None:
    """Not `connection.send`, which torch teaches to send tensors as shared memory."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection) -> Any:
    """The next message; waits.

    Raises:
        EOFError: when the other side has ended.
    """
    return cast(object, pickle.loads(connection.recv_bytes()))  # noqa: S301 - from our own process, through a socket pair
