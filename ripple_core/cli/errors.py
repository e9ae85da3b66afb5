"""One-line errors with what to do, for every command."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from ripple_core.contract.errors import InvalidRequest, RippleError


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command: errors that a user can cause end it with one line and exit code 1, or 2 for bad input."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ValidationError as error:
            first = error.errors()[0]
            return _fail(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", 2)
        except InvalidRequest as error:
            return _fail(str(error), 2)
        except httpx.ConnectError as error:
            url = error.request.url.copy_with(path="/")
            return _fail(f"No server at {url}. Start one with `ripple up`, or use --local to run without one.", 1)
        except (RippleError, httpx.HTTPError, OSError, RuntimeError) as error:
            return _fail(str(error) or type(error).__name__, 1)
        except KeyboardInterrupt:
            return _fail("stopped", 130)

    return wrapped


def _fail(message: str, code: int) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[red]error:[/red] {escape(message)}")
    sys.exit(code)
