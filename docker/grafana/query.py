"""Asks Prometheus what a panel shows."""

import math
from dataclasses import dataclass

import httpx

from grafana.panel import RANGE, RATE, Panel

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        labels: of it.
        legend: of it, as the dashboard has it.
        times: seconds since 1970.
        values: at these times; points without one are left out.
    """

    labels: dict[str, str]
    legend: str
    times: list[float]
    values: list[float]


@dataclass(frozen=True)
class Window:
    """The time that a dashboard shows, in seconds since 1970, and the width of a rate in seconds."""

    start: float
    end: float
    rate: float


def read_panel(prometheus: str, panel: Panel, window: Window) -> list[Series]:
    """Every series of every query of a panel, for all models; empty where there is no data.

    Raises:
        httpx.HTTPStatusError: when a query is wrong.
    """
    step = max((window.end - window.start) / 240, 1.0) if panel.kind == "timeseries" else None
    return [
        series
        for expression, legend in panel.queries.items()
        for series in _read(prometheus, _filled(expression, window), legend, window, step)
    ]


def _filled(expression: str, window: Window) -> str:
    """With values for the variables that Grafana fills in."""
    span = window.end - window.start
    for variable, value in ((RATE, f"{window.rate:.0f}s"), (RANGE, f"{span:.0f}s"), ("$model", ".*")):
        expression = expression.replace(variable, value)
    return expression


def _read(prometheus: str, expression: str, legend: str, window: Window, step: float | None) -> list[Series]:
    where: dict[str, float] = {"time": window.end}
    if step is not None:
        where = {"start": window.start, "end": window.end, "step": step}
    path = "query" if step is None else "query_range"
    answer = httpx.get(
        f"{prometheus}/api/v1/{path}", params={"query": expression, **where}, timeout=_TIMEOUT_SECONDS
    ).raise_for_status()
    found = []
    for result in answer.json()["data"]["result"]:
        points = [(float(time), float(value)) for time, value in result.get("values") or [result["value"]]]
        points = [(time, value) for time, value in points if math.isfinite(value)]
        if points:
            times, values = zip(*points, strict=True)
            labels = result["metric"]
            found.append(Series(labels, _named(legend, labels), list(times), list(values)))
    return found


def _named(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return legend
