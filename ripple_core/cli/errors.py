"""One-line errors with what to do, for every command."""

import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from ripple_core.contract.errors import InvalidRequest, RippleError

# Modules by the extra that brings them. Triton is not here: where it does not exist, everything runs without.
_MODULES_OF_EXTRAS = {
    "worker": (
        *("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "skimage"),
        *("imageio_ffmpeg", "ftfy", "pynvml", "tenacity"),
    ),
    "s3": ("s3fs",),
    "bench": ("matplotlib", "simpy"),
}


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command: errors that a user can cause end it with one line and exit code 1, or 2 for bad input."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ValidationError as error:
            first = error.errors()[0]
            _fail(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", 2)
        except InvalidRequest as error:
            _fail(str(error), 2)
        except httpx.ConnectError as error:
            url = error.request.url.copy_with(path="/")
            _fail(f"No server at {url}. Start one with `ripple up`, or use --local to run without one.", 1)
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            extra = next((extra for extra, modules in _MODULES_OF_EXTRAS.items() if module in modules), None)
            if extra is None:
                raise
            _fail(f"this needs {module}, which is not installed: pip install 'timeripple[{extra}]'", 1)
        except (RippleError, httpx.HTTPError, OSError, RuntimeError) as error:
            _fail(str(error) or type(error).__name__, 1)
        except KeyboardInterrupt:
            _fail("stopped", 130)

    return wrapped


def require_worker_extra() -> None:
    """Look whether a worker could be started here, without loading anything.

    Raises:
        ModuleNotFoundError: when a package of the extra `worker` is not installed; `one_line_errors` tells what to do.
    """
    for module in _MODULES_OF_EXTRAS["worker"]:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {escape(message)}")
    sys.exit(code)
