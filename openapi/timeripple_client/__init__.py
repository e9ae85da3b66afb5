"""A client for TimeRipple servers: make a video, follow it, save it. It needs nothing of the server's own code."""

from timeripple_client.async_client import AsyncClient
from timeripple_client.client import Client
from timeripple_client.models import EstimateAnswer, GenerateRequest, Job, Progress
from timeripple_client.protocol import Event, TimeRippleError

__all__ = ["AsyncClient", "Client", "EstimateAnswer", "Event", "GenerateRequest", "Job", "Progress", "TimeRippleError"]
