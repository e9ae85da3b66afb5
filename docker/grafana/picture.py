"""Draws the dashboards as they are now, without Grafana: `python -m grafana.picture http://prometheus:9090 FOLDER`."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter

from grafana.build import DASHBOARDS, path_of
from grafana.panel import Panel
from grafana.query import Series, Window, read_panel

_COLUMNS = 24
_MOST_IN_LEGEND = 8
_SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SUFFIXES = {"s": " s", "bytes": "B", "flops": "FLOP/s", "ops": "/s", "reqps": "/s", "celsius": " °C"}


def draw(prometheus: str, title: str, window: Window, path: Path) -> None:
    """Write one dashboard as a PNG.

    Args:
        prometheus: address of it.
        title: of the dashboard.
        window: what it shows.
        path: of the picture.
    """
    rows = _rows(DASHBOARDS[title])
    heights = [1 if row[0].kind == "stat" else 3 for row in rows]
    figure = plt.figure(figsize=(15, 0.85 * sum(heights) + 0.6), layout="constrained")
    figure.suptitle(f"TimeRipple: {title}", fontweight="bold")
    parts: Any = figure.subfigures(len(rows), height_ratios=heights)
    for part, row in zip(parts, rows, strict=True):
        widths = [panel.width for panel in row]
        for axes, panel in zip(part.subplots(1, len(row), width_ratios=widths, squeeze=False)[0], row, strict=True):
            series = read_panel(prometheus, panel, window)
            (_draw_stat if panel.kind == "stat" else _draw_lines)(axes, panel, series)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _rows(panels: list[Panel]) -> list[list[Panel]]:
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        if sum(placed.width for placed in rows[-1]) + panel.width > _COLUMNS:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _draw_stat(axes: Axes, panel: Panel, series: list[Series]) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.axis("off")
    text = _format(panel.unit)(series[0].values[-1]) if series else "no data"
    axes.text(0.5, 0.4, text, fontsize=20, ha="center", va="center", color="tab:green" if series else "grey")


def _draw_lines(axes: Axes, panel: Panel, series: list[Series]) -> None:
    axes.set_title(panel.title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    write = _format(panel.unit)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    if not series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="grey")
        return
    # The liveliest first: the rest are lines at zero, mostly.
    for line in sorted(series, key=lambda line: -max(line.values)):
        axes.plot(*_with_gaps(line), label=line.legend, linewidth=1)
    axes.set_ylim(bottom=min(0.0, *(min(line.values) for line in series)))
    locator = AutoDateLocator(maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:_MOST_IN_LEGEND], labels[:_MOST_IN_LEGEND], fontsize=6, loc="upper left", framealpha=0.7)


def _with_gaps(line: Series) -> tuple[np.ndarray, np.ndarray]:
    """Times and values, with a break where points are missing."""
    times, values = np.array(line.times), np.array(line.values)
    steps = np.diff(times)
    gaps = np.flatnonzero(steps > 1.5 * steps.min(initial=np.inf)) + 1
    return np.insert(times, gaps, times[gaps]).astype("datetime64[s]"), np.insert(values, gaps, np.nan)


def _format(unit: str) -> Callable[[float], str]:
    if unit == "percentunit":
        return lambda value: f"{100 * value:.4g} %"

    def scaled(value: float) -> str:
        for size, letter in _SCALES if unit not in ("s", "celsius") else ():
            if abs(value) >= size:
                return f"{value / size:.3g} {letter}{_SUFFIXES.get(unit, '')}"
        return f"{value:.3g}{_SUFFIXES.get(unit, '')}"

    return scaled


def main() -> None:
    """Draw the last half hour of every dashboard."""
    prometheus, folder = sys.argv[1], Path(sys.argv[2])
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    now = time.time()
    for title in DASHBOARDS:
        # As Grafana computes the width of a rate, where Prometheus scrapes every five seconds.
        draw(prometheus, title, Window(now - 60 * minutes, now, 20.0), folder / f"{path_of(title).stem}.png")


if __name__ == "__main__":
    main()
