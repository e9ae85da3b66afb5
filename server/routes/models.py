"""The models."""

from typing import get_args

from fastapi import APIRouter

from ripple_core.contract.request import ReuseMode
from server.deps import Service
from server.schemas import Model, ModelList

router = APIRouter(tags=["models"])


@router.get("/models")
def list_models(service: Service) -> ModelList:
    """List what this server generates with, the defaults and the limits of each."""
    spec = service.model
    model = Model.model_validate(spec.model_dump() | {"source": spec.source, "modes": get_args(ReuseMode)})
    return ModelList(models=[model])
