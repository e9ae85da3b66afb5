"""What this worker is at, for the threads that tell others and look after it."""

import os
import socket
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event

from ripple_core.contract.job import utc_now
from ripple_core.contract.workers import WorkerInfo, WorkerState


@dataclass
class WorkerStatus:
    """Written by the main thread, read by others.

    Attributes:
        name: of this worker, unlike any other's.
        device: as configured.
        models: ids of the models whose jobs it takes.
        state: what it is doing, unless it drains.
        draining: whether it is about to end.
        loaded: ids of models in memory, the last one used at the end.
        executions: "worker/token" of those under way, and the id of the job of each.
        changed: set when others should be told at once.
    """

    name: str
    device: str
    models: list[str]
    state: WorkerState = "starting"
    draining: bool = False
    loaded: tuple[str, ...] = ()
    executions: dict[str, str] = field(default_factory=dict)
    started_at: datetime = field(default_factory=utc_now)
    changed: Event = field(default_factory=Event)

    def enter(self, state: WorkerState) -> None:
        """Change the state."""
        self.state = state
        self.changed.set()

    def drain(self) -> None:
        """The worker is about to end."""
        self.draining = True
        self.changed.set()

    def set_loaded(self, model_ids: tuple[str, ...]) -> None:
        """The ids of the models in memory have changed."""
        self.loaded = model_ids
        self.changed.set()

    def info(self) -> WorkerInfo:
        """As others see it."""
        # First: a job that was claimed before is among the jobs below.
        told_at = utc_now()
        return WorkerInfo(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=self.device,
            state="draining" if self.draining else self.state,
            started_at=self.started_at,
            told_at=told_at,
            models=self.models,
            loaded=list(self.loaded),
            jobs=sorted(self.executions.copy().values()),
        )
