"""`python -m worker`: one worker process on the settings in the environment."""

import sys

from pydantic import ValidationError
from redis import RedisError

from ripple_core.contract.errors import ModelsFileInvalid, UnknownModel
from ripple_core.contract.model_config import load_model_configs
from ripple_core.logs import configure_logging
from ripple_core.tracing import configure_tracing, end_tracing
from worker.loop import run_worker
from worker.settings import WorkerSettings


def main() -> int:
    """Run until stopped; 2 for wrong settings, 1 when Redis cannot be reached."""
    try:
        settings = WorkerSettings()
        load_model_configs(settings)
    except ValidationError as error:
        first = error.errors()[0]
        print(f"error: setting {first['loc'][0]}: {first['msg']}", file=sys.stderr)  # noqa: T201
        return 2
    except (UnknownModel, ModelsFileInvalid) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    configure_logging(settings.log_level, settings.log_format)
    try:
        configure_tracing("timeripple-worker")
        run_worker(settings)
    except (ValueError, RedisError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    end_tracing()
    return 0


if __name__ == "__main__":
    sys.exit(main())
