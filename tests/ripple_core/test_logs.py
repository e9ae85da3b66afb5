"""How processes log, by processes that do."""

import json
import subprocess
import sys
from typing import Any

import pytest

_PROGRAM = """
import logging, sys
from structlog.contextvars import bound_contextvars
from ripple_core.logs import configure_logging
configure_logging("INFO", sys.argv[1])
logger = logging.getLogger("some.module")
logger.debug("not told")
with bound_contextvars(job_id="j1"):
    logger.info("step %d", 3, extra={"seconds": 0.5})
logging.getLogger("diffusers.pipelines.wan").warning("The following part of your input was truncated: ['secret words']")
def fail():
    prompt = "secret words"
    raise RuntimeError("no device")
try:
    fail()
except RuntimeError:
    logger.exception("went wrong")
"""


def log_of(log_format: str) -> str:
    command = [sys.executable, "-c", _PROGRAM, log_format]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in log_of("json").splitlines()]


def test_a_line_of_json_has_what_was_said_bound_and_added(lines: list[dict[str, Any]]) -> None:
    first = lines[0]
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "step 3",
        "level": "info",
        "logger": "some.module",
        "job_id": "j1",
        "seconds": 0.5,
    }
    assert "job_id" not in lines[1]


def test_a_traceback_is_in_its_line(lines: list[dict[str, Any]]) -> None:
    (raised,) = lines[-1]["exception"]
    assert (raised["exc_type"], raised["exc_value"]) == ("RuntimeError", "no device")
    assert raised["frames"][-1]["name"] == "fail"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_neither_a_prompt_nor_the_values_of_variables_are_logged(log_format: str) -> None:
    text = log_of(log_format)
    assert "the prompt is longer than the text encoder takes" in text
    assert "RuntimeError" in text
    assert "secret words" not in text.replace('prompt = "secret words"', "")


def test_lines_for_people_have_no_colours_in_a_file() -> None:
    first = log_of("console").splitlines()[0]
    assert "step 3" in first
    assert "job_id=j1" in first
    assert "\x1b" not in first
