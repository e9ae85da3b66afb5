"""One panel of a dashboard, and the queries that many of them share.

Counters and gauges of the job store are told by every API process alike, so one of them is taken; histograms and
counters of processes are summed.
"""

from dataclasses import dataclass
from typing import Literal

RATE = "$__rate_interval"
RANGE = "$__range"
MODEL = 'model=~"$model"'
# Labels that tell API processes apart.
_INSTANCE = "without (instance, pod)"
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
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    description: str = ""
    largest: float | None = None


def quantile(q: float, histogram: str, by: str = "", labels: str = MODEL) -> str:
    """A quantile of a histogram, in the whole or by a label."""
    also = f", {by}" if by else ""
    return f"histogram_quantile({q}, sum by (le{also}) (rate({histogram}_bucket{{{labels}}}[{RATE}])))"


def quantiles(histogram: str, by: str = "", labels: str = MODEL) -> dict[str, str]:
    """p50, p90 and p99 of it, with their legends."""
    legend = f" {{{{{by}}}}}" if by else ""
    return {quantile(q, histogram, by, labels): f"p{q * 100:g}{legend}" for q in _QUANTILES}


def rate(counter: str, by: str = "", labels: str = MODEL) -> str:
    """What a counter of the job store grows by in a second, in the whole or by labels."""
    return stored(f"rate({counter}{{{labels}}}[{RATE}])", by)


def increase(counter: str, by: str = "", labels: str = MODEL) -> str:
    """What it grew by in the time that the dashboard shows."""
    return stored(f"increase({counter}{{{labels}}}[{RANGE}])", by)


def stored(expression: str, by: str = "") -> str:
    """What the job store tells, in the whole or by labels."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (max {_INSTANCE} ({expression}))"
