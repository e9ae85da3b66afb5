"""PNG pictures of a fidelity report."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from ripple_core.bench.render import Clip
from ripple_core.bench.report import FidelityReport, VariantReport

_MARKERS = "osv^DPX*"
_SHEET_FRAMES = 5
# Pixels; of one frame on a contact sheet.
_SHEET_FRAME_WIDTH = 320
_ONE_COLUMN_UP_TO = 3
_AMPLIFIED = 4
_LABEL_HEIGHT = 14


def write_plots(report: FidelityReport, folder: Path) -> list[Path]:
    """Draw everything there is to draw; returns the files."""
    pictures = {"psnr_savings.png": _psnr_against_savings(report)}
    reusing = [variant for variant in report.variants if variant.savings_by_step and variant.attention_savings > 0]
    if reusing:
        pictures["savings_by_step.png"] = _savings_by_step(reusing)
        pictures["savings_by_layer_and_head.png"] = _heat_maps(
            [(variant.name, variant.savings_by_layer_and_head or {}) for variant in reusing], "head", "savings"
        )
    errors = [(variant.name, variant.attention_error) for variant in report.variants if variant.attention_error]
    if errors:
        tables = [(name, {layer: list(row.values()) for layer, row in table.items()}) for name, table in errors]
        pictures["attention_error.png"] = _heat_maps(tables, "reusing step", "relative error")
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=120)
    return [folder / name for name in pictures]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _psnr_against_savings(report: FidelityReport) -> Figure:
    figure = _figure(8, 5)
    axes = figure.subplots()
    labels = list(dict.fromkeys(variant.label for variant in report.variants))
    for index, label in enumerate(labels):
        points = [variant for variant in report.variants if variant.label == label and variant.psnr_db]
        _draw_points(axes, sorted(points, key=lambda variant: variant.attention_savings), label, index)
    axes.set(
        xlabel="saved of all attention FLOPs, dense steps included [%]",
        ylabel="PSNR against the dense video [dB]: min, median, max over clips",
        title=f"{report.model}: {len(report.dense)} clips, {report.num_inference_steps} steps",
    )
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    return figure


def _draw_points(axes: Axes, points: Sequence[VariantReport], label: str, index: int) -> None:
    spreads = [point.psnr_db for point in points if point.psnr_db]
    if not spreads:
        return
    median = np.array([spread.median for spread in spreads])
    bars = [median - [spread.min for spread in spreads], np.array([spread.max for spread in spreads]) - median]
    x = [100 * point.attention_savings for point in points]
    line = "-" if points[0].kind == "timeripple" else "none"
    axes.errorbar(x, median, yerr=bars, label=label, marker=_MARKERS[index % len(_MARKERS)], linestyle=line, capsize=3)


def _savings_by_step(variants: list[VariantReport]) -> Figure:
    figure = _figure(8, 4)
    axes = figure.subplots()
    for variant in variants:
        by_step = variant.savings_by_step or {}
        axes.step(list(by_step), [100 * value for value in by_step.values()], where="mid", label=variant.name)
    axes.set(xlabel="denoising step", ylabel="saved of all attention FLOPs [%]")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    return figure


def _heat_maps(tables: list[tuple[str, dict[int, list[float]]]], columns: str, quantity: str) -> Figure:
    """One map a variant, a row a layer, all on one scale."""
    figure = _figure(max(2.6 * len(tables), 4), 3.4)
    grid = [np.array(list(table.values())) for _, table in tables]
    top = max(float(values.max()) for values in grid) or 1.0
    all_axes = np.atleast_1d(figure.subplots(1, len(tables)))
    for axes, (name, table), values in zip(all_axes, tables, grid, strict=True):
        image = axes.imshow(values, vmin=0, vmax=top, aspect="auto", cmap=mpl.colormaps["viridis"])
        axes.set_title(name, fontsize=8)
        axes.set(xlabel=columns, ylabel="layer", yticks=range(len(table)), yticklabels=list(table))
    figure.colorbar(image, ax=list(all_axes), label=quantity)
    return figure


def write_contact_sheet(path: Path, dense: Sequence[Clip], variant: Sequence[Clip], name: str) -> None:
    """Every clip in three rows: dense, variant, and their difference amplified; many clips stand in two columns."""
    panels = [_panel(reference, clip) for reference, clip in zip(dense, variant, strict=True)]
    columns = 2 if len(panels) > _ONE_COLUMN_UP_TO else 1
    panels += [np.zeros_like(panels[0])] * (-len(panels) % columns)
    rows = [np.concatenate(panels[start : start + columns], axis=1) for start in range(0, len(panels), columns)]
    title = _label(f"dense / {name} / difference x{_AMPLIFIED}", rows[0].shape[1])
    Image.fromarray(np.concatenate([title, *rows])).save(path)


def _panel(reference: Clip, clip: Clip) -> np.ndarray:
    chosen = np.linspace(0, len(clip.frames) - 1, _SHEET_FRAMES).round().astype(int)
    before, after = (frames[chosen].astype(np.int16) for frames in (reference.frames, clip.frames))
    difference = np.clip(np.abs(after - before) * _AMPLIFIED, 0, 255)
    strips = [_strip(part) for part in (before, after, difference)]
    return np.concatenate([_label(clip.record.prompt, strips[0].shape[1]), *strips])


def _strip(frames: np.ndarray) -> np.ndarray:
    """Frames ``[num_frames, height, width, 3]`` side by side, large ones reduced by a whole number."""
    factor = -(-frames.shape[2] // _SHEET_FRAME_WIDTH)
    image = Image.fromarray(np.concatenate(list(frames), axis=1).astype(np.uint8))
    return np.asarray(image.reduce(factor))


def _label(text: str, width: int) -> np.ndarray:
    image = Image.new("RGB", (width, _LABEL_HEIGHT))
    ImageDraw.Draw(image).text((2, 1), text, fill="white")
    return np.asarray(image)
