"""`ripple doctor`: what is there, what is not, and what to do about it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ripple_core.cli.errors import one_line_errors


@one_line_errors
def doctor(
    data_dir: Annotated[Path, typer.Option(envvar="RIPPLE_DATA_DIR", help="Where videos go.")] = Path("ripple-data"),
) -> None:
    """Tell what this machine has of what the server and a worker need; exit code 1 when something is missing."""
    from rich.table import Table

    from ripple_core.cli.show import console
    from ripple_core.contract.settings import SharedSettings
    from ripple_core.doctor import examine

    findings = list(examine(SharedSettings().redis_url, data_dir))
    table = Table("", "state", "found", "needed by", "what to do")
    colours = {"ok": "green", "warning": "yellow", "missing": "red"}
    for one in findings:
        state = f"[{colours[one.state]}]{one.state}[/]"
        table.add_row(one.name, state, one.found, one.needed_by, one.remedy)
    console.print(table)
    if any(one.state == "missing" for one in findings):
        sys.exit(1)
