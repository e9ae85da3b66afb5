"""Writes the dashboards that Grafana is provisioned with."""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

from grafana import fleet, latency, savings
from grafana.panel import Panel

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {"Latency": latency.PANELS, "Compute savings": savings.PANELS, "Fleet": fleet.PANELS}
_TAG = "timeripple"
_DATASOURCE = DataSourceRef(type_val="prometheus", uid="timeripple-prometheus")


def path_of(title: str) -> Path:
    """Where a dashboard lies."""
    return FOLDER / f"{title.lower().replace(' ', '-')}.json"


def render(title: str) -> str:
    """The JSON of one dashboard."""
    link = dashboard.DashboardLink("TimeRipple").type(DashboardLinkType.DASHBOARDS).tags([_TAG]).as_dropdown(True)
    models = (
        dashboard.QueryVariable("model")
        .datasource(_DATASOURCE)
        .query("label_values(timeripple_model_workers, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )
    builder = dashboard.Dashboard(f"TimeRipple: {title}").uid(f"timeripple-{path_of(title).stem}").tags([_TAG])
    builder.time("now-1h", "now").refresh("10s").link(link).with_variable(models)
    for panel in DASHBOARDS[title]:
        builder.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(builder.build()) + "\n"


def _panel(panel: Panel) -> Any:
    built: Any = stat.Panel() if panel.kind == "stat" else timeseries.Panel()
    built = built.title(panel.title).description(panel.description).datasource(_DATASOURCE).unit(panel.unit)
    if panel.largest is not None:
        built = built.max(panel.largest)
    if panel.kind == "stat":
        built = built.thresholds(_thresholds(panel))
    for letter, (expression, legend) in zip(ascii_uppercase[: len(panel.queries)], panel.queries.items(), strict=True):
        query = prometheus.Dataquery().ref_id(letter).expr(expression).legend_format(legend).datasource(_DATASOURCE)
        built.with_target(query.instant() if panel.kind == "stat" else query.range())
    return built.span(panel.width).height(4 if panel.kind == "stat" else 8)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, "blue")]
    if panel.alarm is not None:
        side, value = panel.alarm
        colours = ("red", "green") if side == "below" else ("green", "red")
        steps = [Threshold(None, colours[0]), Threshold(value, colours[1])]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


if __name__ == "__main__":
    for name in DASHBOARDS:
        path_of(name).write_text(render(name), encoding="utf-8")
