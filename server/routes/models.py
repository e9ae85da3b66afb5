"""The models."""

from fastapi import APIRouter

from server.deps import Service
from server.errors import responses
from server.schemas import Model, ModelList

router = APIRouter(tags=["models"])


@router.get("/models", responses=responses())
def list_models(service: Service) -> ModelList:
    """List what this server generates with: defaults and limits of each, and the workers that have it loaded."""
    workers, loras = service.loaded_on(), service.loras
    specs = [config.spec for config in service.models]
    return ModelList(models=[Model.of(spec, loras, workers[spec.id]) for spec in specs])
