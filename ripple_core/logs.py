"""How every process logs: for people or as JSON, each line with the job and the request that it is about.

What is bound with `structlog.contextvars` in a thread or task, such as `job_id`, is on every line logged there, whoever
logs it.
"""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["console", "json"]


def configure_logging(level: str, log_format: LogFormat) -> None:
    """Send all of this process's logging to standard error in one format.

    Args:
        level: least severe level logged.
        log_format: lines for people, or one JSON object a line with `timestamp`, `level`, `logger` and `event`.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _drop_colour,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    # Tracebacks without the values of variables: those hold prompts and keys.
    if log_format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        last = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    handler.addFilter(_without_prompt)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    if level != "DEBUG":
        # They tell of every request, with signed URLs.
        for name in ("httpx", "httpx2", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)


def configure_pipeline_logging() -> None:
    """Have diffusers and transformers log like everything else; imports both."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_default_handler()
        library.enable_propagation()


def _without_prompt(record: logging.LogRecord) -> bool:
    """Pipelines quote the part of a prompt that their text encoder has no room for."""
    if record.name.startswith("diffusers.") and "truncated" in record.getMessage():
        record.msg, record.args = "the prompt is longer than the text encoder takes; the rest is left out", ()
    return True


def _drop_colour(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """uvicorn says the same again with colours."""
    event.pop("color_message", None)
    return event
