"""The models."""

from typing import get_args

from fastapi import APIRouter

from ripple_core.contract.request import ReuseMode
from server.deps import Service
from server.errors import responses
from server.schemas import Model, ModelList

router = APIRouter(tags=["models"])


@router.get("/models", responses=responses())
def list_models(service: Service) -> ModelList:
    """List what this server generates with, the defaults and the limits of each."""
    spec = service.model
    shown = {"modes": get_args(ReuseMode), "loras": service.loras, "max_work": spec.work_limit}
    return ModelList(models=[Model(**dict(spec) | shown)])
