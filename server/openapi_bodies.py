"""Describes request bodies that routes read by themselves, and all schemas that FastAPI does not see."""

from typing import Annotated, Any

from fastapi import FastAPI, Header
from pydantic import BaseModel

from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.webhooks import WebhookPayload
from server.openai_schemas import OpenAIError, RemixRequest, VideoCreateRequest
from server.schemas import Problem

_REFERENCE = "#/components/schemas/{model}"


def body_of(model: type[BaseModel], file_field: str | None = None) -> dict[str, Any]:
    """For a route's `openapi_extra`: the model as JSON, or as a form in which one field may be a file."""
    form: dict[str, Any] = {"$ref": _REFERENCE.format(model=model.__name__)}
    if file_field:
        schema = model.model_json_schema(ref_template=_REFERENCE)
        form = {
            "type": "object",
            "required": schema["required"],
            "properties": schema["properties"] | {file_field: {"type": "string", "format": "binary"}},
            "additionalProperties": False,
            "description": "Parts of fields as in reuse[aggressiveness]=0.5, or as JSON: reuse={...}.",
        }
    content = {
        "application/json": {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def schemas() -> dict[str, Any]:
    """Components for what `body_of` and the error responses refer to."""
    found: dict[str, Any] = {}
    for model in (GenerateRequest, VideoCreateRequest, RemixRequest, Problem, OpenAIError):
        schema = model.model_json_schema(ref_template=_REFERENCE)
        found |= schema.pop("$defs", {}) | {model.__name__: schema}
    return found


def describe_webhooks(app: FastAPI) -> None:
    """Add what receivers of webhooks get to the document."""

    # FastAPI would add an error of its own otherwise.
    @app.webhooks.post("job-ended", responses={"default": {"description": "Another attempt is made later."}})
    def job_ended(
        body: WebhookPayload,
        webhook_id: Annotated[str, Header(description="The same for every attempt to tell of a job.")],
        webhook_timestamp: Annotated[int, Header(description="Seconds since 1970.")],
        webhook_signature: Annotated[str, Header(description="Of the Standard Webhooks scheme, v1.")],
    ) -> None:
        """Tell `webhook.url` of a request that its job has ended; any 2xx answer ends the attempts."""
