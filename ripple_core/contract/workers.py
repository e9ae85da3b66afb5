"""What a worker tells of itself with every heartbeat."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

WorkerState = Literal["starting", "idle", "busy", "draining"]


class WorkerInfo(BaseModel):
    """A worker as it last described itself."""

    name: str = Field(description="Host, process and a random part.")
    host: str = Field(description="Name of its machine.")
    pid: int = Field(description="Its process.")
    device: str = Field(description="As configured, such as cuda:0 or auto.")
    state: WorkerState = Field(
        description="starting: loads what is to be warm; draining: takes no more jobs and is about to end."
    )
    started_at: datetime = Field(description="When it began.")
    told_at: datetime = Field(description="When it told this, by the clock it stamps the jobs it starts with.")
    models: list[str] = Field([], description="Ids of the models whose jobs it takes.")
    loaded: list[str] = Field([], description="Ids of those in its memory, the last one used at the end.")
    jobs: list[str] = Field([], description="Ids of the jobs it is at.")

    @property
    def takes_jobs(self) -> bool:
        """Whether queued jobs may count on it."""
        return self.state in ("idle", "busy")
