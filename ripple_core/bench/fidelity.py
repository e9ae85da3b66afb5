"""PSNR against the dense video of the same prompt and seed, beside the savings counted in the same run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image
from rich.table import Table
from skimage.metrics import peak_signal_noise_ratio

from ripple_core.attention import SavingsReport
from ripple_core.cli.show import console, progress_bar
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import GeneratedFrames, LoadedModel, generate_frames, load_model

DEFAULT_PROMPTS = (
    "a red circle moving left on a dark background",
    "a green square moving right on a light background",
    "a yellow triangle moving up on a grey background",
    "a blue circle moving down on a light background",
)


@dataclass(frozen=True)
class Row:
    """One aggressiveness value over all clips."""

    aggressiveness: float
    reports: list[SavingsReport]
    psnr_db: list[float]
    identical: bool


def measure_fidelity(
    model_name: str, prompts: Sequence[str], values: Sequence[float], contact_sheet: Path | None = None
) -> list[Row]:
    """Render every prompt dense and at each value; print and return the table.

    Args:
        model_name: for `find_model`.
        prompts: one clip each; the seed is the prompt's index.
        values: of aggressiveness.
        contact_sheet: PNG with frames of every clip, dense and then at each value, one clip below the other.

    Raises:
        ValidationError: for a value outside 0..1 or an empty prompt.
    """
    settings = [ReuseSettings(aggressiveness=value) for value in values]
    model = load_model(find_model(model_name))
    dense = [_render(model, prompt, seed, ReuseSettings(mode="dense")) for seed, prompt in enumerate(prompts)]
    rows, rendered = [], [dense]
    for setting in settings:
        clips = [_render(model, prompt, seed, setting) for seed, prompt in enumerate(prompts)]
        rendered.append(clips)
        pairs = list(zip(dense, clips, strict=True))
        rows.append(
            Row(
                setting.aggressiveness,
                [clip.report for clip in clips],
                [_psnr_db(reference.frames, clip.frames) for reference, clip in pairs],
                all(np.array_equal(reference.frames, clip.frames) for reference, clip in pairs),
            )
        )
    _print(model, rows)
    if contact_sheet is not None:
        strips = [_strip(clips[index].frames) for index in range(len(prompts)) for clips in rendered]
        Image.fromarray(np.concatenate(strips)).save(contact_sheet)
    return rows


def _strip(frames: np.ndarray, num_shown: int = 6) -> np.ndarray:
    """Evenly spaced frames side by side: ``[height, num_shown * width, 3]``."""
    chosen = np.linspace(0, len(frames) - 1, num_shown).round().astype(int)
    return np.concatenate(list(frames[chosen]), axis=1)


def _render(model: LoadedModel, prompt: str, seed: int, reuse: ReuseSettings) -> GeneratedFrames:
    request = resolve(GenerateRequest(prompt=prompt, seed=seed, reuse=reuse), model.spec)
    with progress_bar() as on_progress:
        return generate_frames(model, request, on_progress)


def _psnr_db(reference: np.ndarray, frames: np.ndarray) -> float:
    if np.array_equal(reference, frames):
        return float("inf")
    return float(peak_signal_noise_ratio(reference, frames))


def _print(model: LoadedModel, rows: list[Row]) -> None:
    table = Table(
        "aggressiveness", "saved of QK^T", "saved of all attention", "PSNR min", "median", "max", "identical",
        title=f"{model.spec.id}, {len(rows[0].psnr_db)} clips, {model.device_name}",
    )  # fmt: skip
    for row in rows:
        psnr = [f"{value:.1f}" for value in (min(row.psnr_db), median(row.psnr_db), max(row.psnr_db))]
        score = mean(report.score_savings for report in row.reports)
        whole = mean(report.savings for report in row.reports)
        table.add_row(
            f"{row.aggressiveness:g}", f"{score:.1%}", f"{whole:.1%}", *psnr, "yes" if row.identical else "no"
        )
    console.print(table)
