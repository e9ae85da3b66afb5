"""`ripple doctor`: what is there, what is not, and what to do about it."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ripple_core.cli.errors import one_line_errors

if TYPE_CHECKING:
    from rich.table import Table

    from ripple_core.doctor import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red"}


@one_line_errors
def doctor(
    part: Annotated[
        Literal["all", "server", "worker"],
        typer.Option("--for", help="What is to run here; server is the API, which needs no torch."),
    ] = "all",
    data_dir: Annotated[Path, typer.Option(envvar="RIPPLE_DATA_DIR", help="Where videos go.")] = Path("ripple-data"),
) -> None:
    """Tell what this machine has, and what to do about what it has not; exit code 1 when something cannot run."""
    from ripple_core.cli.show import console
    from ripple_core.contract.settings import SharedSettings
    from ripple_core.doctor import PARTS, examine

    # What is wrong is in the table.
    logging.disable(logging.WARNING)
    parts = [one for one in PARTS if part in (one, "all")]
    findings = list(examine(parts, SharedSettings(data_dir=data_dir)))
    console.print(_table(findings))
    for one in parts:
        lacking = [finding.name for finding in findings if finding.state == "missing" and one in finding.parts]
        console.print(f"{one}: " + (f"cannot run here, see {', '.join(lacking)}" if lacking else "can run here"))
    if any(finding.state == "missing" for finding in findings):
        sys.exit(1)


def _table(findings: "list[Finding]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table("", "for", "state", "found -> what to do")
    # Long paths are broken, not cut off.
    table.columns[-1].overflow = "fold"
    for one in findings:
        parts = "both" if len(one.parts) > 1 else one.parts[0]
        # Not markup: a remedy may name an extra in brackets.
        told = Text(one.found).append(f"\n-> {one.remedy}" if one.remedy else "", style="bold")
        table.add_row(one.name, parts, Text(one.state, style=_COLOURS[one.state]), told)
    return table
