"""The record of `ripple bench queue`."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel

from ripple_core.bench.queue_fleets import SimulationReport
from ripple_core.bench.queue_load import LoadReport


class QueueReport(BaseModel):
    """The whole record; a part that was not asked for is null."""

    cores: int
    machine: str
    date: str
    command: str
    simulation: SimulationReport | None
    load: LoadReport | None

    @classmethod
    def of(cls, simulation: SimulationReport | None, load: LoadReport | None) -> Self:
        """On this machine, now."""
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        return cls(
            cores=os.cpu_count() or 1,
            machine=platform.machine(),
            date=datetime.now(UTC).date().isoformat(),
            command=shlex.join(command),
            simulation=simulation,
            load=load,
        )
