"""One panel of a dashboard, and the queries that many of them share.

Counters of the job store are recorded by docker/prometheus/rules.yml, as every API process tells them alike; of gauges
the maximum is taken. Histograms and counters of processes are summed.
"""

from dataclasses import dataclass
from typing import Literal

# Of requests, which are many, and of jobs, which are few.
RATE = "$__rate_interval"
JOB_RATE = "10m"
RANGE = "$__range"
MODEL = 'model=~"$model"'
# What tells gauges of the job store apart; other labels say who was asked.
_STORE_LABELS = "model, priority, state, status"
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: PromQL, and the legend of its series.
        unit: Grafana's name of the unit.
        kind: lines over time, or the last value alone.
        width: of 24 columns.
        description: what a reader has to know.
        largest: top of the axis, where there is one.
        alarm: when a stat is red: below or above a value.
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    description: str = ""
    largest: float | None = None
    alarm: tuple[Literal["below", "above"], float] | None = None


def quantile(q: float, histogram: str, by: str = "", labels: str = MODEL, window: str = JOB_RATE) -> str:
    """A quantile of a histogram, in the whole or by a label."""
    also = f", {by}" if by else ""
    return f"histogram_quantile({q}, sum by (le{also}) (rate({histogram}_bucket{{{labels}}}[{window}])))"


def quantiles(histogram: str, by: str = "", labels: str = MODEL) -> dict[str, str]:
    """p50, p90 and p99 of it, with their legends."""
    legend = f" {{{{{by}}}}}" if by else ""
    return {quantile(q, histogram, by, labels): f"p{q * 100:g}{legend}" for q in _QUANTILES}


def rate(counter: str, by: str = "", labels: str = MODEL) -> str:
    """What a counter of the job store grows by in a second, in the whole or by labels."""
    return _sum(f"rate({recorded(counter)}{{{labels}}}[{JOB_RATE}])", by)


def increase(counter: str, by: str = "", labels: str = MODEL) -> str:
    """What it grew by in the time that the dashboard shows."""
    return _sum(f"increase({recorded(counter)}{{{labels}}}[{RANGE}])", by)


def recorded(counter: str) -> str:
    """The series that the rules record of a counter of the job store."""
    return f"timeripple:{counter}_total:max"


def stored(gauge: str, by: str = "", labels: str = "") -> str:
    """A gauge of the job store, in the whole or by labels."""
    return _sum(f"max by ({_STORE_LABELS}) ({gauge}{{{labels}}})", by)


def _sum(expression: str, by: str) -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} ({expression})"
