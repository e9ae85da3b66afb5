"""Schemathesis against the live server: whatever a client sends, the answer is one the OpenAPI document describes."""

import json
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from samples import worker_info
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.openapi import OPENAPI_FILE

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMA = schemathesis.openapi.from_dict(json.loads(OPENAPI_FILE.read_text()))
OPERATIONS = [operation.ok() for operation in SCHEMA.get_all_operations()]
# Right requests and wrong ones, of every operation.
NUM_EXAMPLES = 20


def _can_be_wrong(operation: Any) -> bool:
    """Any text is a job id; there must be something else to get wrong."""
    elsewhere = [parameter for parameter in operation.definition.raw.get("parameters", []) if parameter["in"] != "path"]
    return bool(elsewhere) or "requestBody" in operation.definition.raw


CASES = [(operation, GenerationMode.POSITIVE) for operation in OPERATIONS] + [
    (operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if _can_be_wrong(operation)
]


@pytest.mark.parametrize(
    ("operation", "mode"), CASES, ids=[f"{operation.label} {mode.value}" for operation, mode in CASES]
)
def test_every_answer_is_a_documented_one(session_api: Any, operation: Any, mode: GenerationMode) -> None:
    # Readiness is a 503 without a worker, as documented; every other 5xx is an error.
    session_api.store.beat(worker_info("worker"), timedelta(seconds=60))

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=NUM_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        case.call_and_validate(base_url=str(session_api.client.base_url), checks=CHECKS, timeout=30)

    check()
    session_api.store.redis.flushall()
