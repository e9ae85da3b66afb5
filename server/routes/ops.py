"""For operators: liveness, readiness and metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.deps import Service
from server.errors import NotReady, responses
from server.schemas import Health

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz() -> Health:
    """Answer as long as the process lives."""
    return Health(status="ok")


@router.get("/readyz", responses=responses())
def readyz(service: Service) -> Health:
    """Answer 200 when Redis is reachable and at least one worker takes jobs."""
    workers = service.store.workers()
    if not workers:
        raise NotReady("No worker is alive; start one with `ripple worker`.")
    if not any(worker.takes_jobs for worker in workers):
        raise NotReady("No worker takes jobs at the moment: all of them are starting or about to end.")
    return Health(status="ready")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Expose metrics in the Prometheus text format."""
    return Response(generate_latest(request.app.state.metrics_registry), media_type=CONTENT_TYPE_LATEST)
