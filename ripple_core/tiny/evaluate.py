"""Judges the built-in model on fresh captions: `python -m ripple_core.tiny.evaluate`.

The scenes are of the eighth that training never shows, drawn from a seed of one's own choice. Every clip is judged
against its own caption and against the next one's, which a judge that sees what it wants to see would pass as well.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from ripple_core.contract.models import BUILTIN_MODEL_FOLDER, find_model
from ripple_core.contract.request import GenerateRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel, generate_frames, load_model
from ripple_core.tiny.clips import Scene, random_scene
from ripple_core.tiny.judge import Verdict, judge


@dataclass(frozen=True)
class Evaluation:
    """Shares of clips, 0..1.

    Attributes:
        clips: how many were judged.
        right: by attribute; "all" counts the clips with everything right.
        shuffled: clips with everything right against another clip's caption.
        wrong: caption and verdict of every clip with something wrong.
    """

    clips: int
    right: dict[str, float]
    shuffled: float
    wrong: list[tuple[str, str]]


def fresh_scenes(num_clips: int, seed: int) -> list[Scene]:
    """Held-out scenes."""
    rng = np.random.default_rng(seed)
    return [random_scene(rng, held_out=True) for _ in range(num_clips)]


def evaluate(scenes: list[Scene], verdicts: list[Verdict]) -> Evaluation:
    """Put single verdicts together; scenes and verdicts are in the same order."""
    matches = [verdict.matches(scene) for verdict, scene in zip(verdicts, scenes, strict=True)]
    next_scenes = scenes[1:] + scenes[:1]
    shuffled = [all(v.matches(scene).values()) for v, scene in zip(verdicts, next_scenes, strict=True)]
    return Evaluation(
        clips=len(scenes),
        right={name: float(np.mean([match[name] for match in matches])) for name in matches[0]}
        | {"all": float(np.mean([all(match.values()) for match in matches]))},
        shuffled=float(np.mean(shuffled)),
        wrong=[
            (scene.caption(), str(verdict))
            for scene, verdict, match in zip(scenes, verdicts, matches, strict=True)
            if not all(match.values())
        ],
    )


def judge_model(
    model: LoadedModel,
    scenes: list[Scene],
    seed: int,
    num_inference_steps: int | None = None,
    on_clip: Callable[[np.ndarray], None] = lambda _: None,
) -> list[Verdict]:
    """Generate every scene's clip, dense, and judge it.

    Args:
        seed: of the first clip; the others count up.
        num_inference_steps: None for the model's default.
        on_clip: gets each clip's frames ``[num_frames, height, width, 3]``.
    """
    verdicts = []
    for index, scene in enumerate(track(scenes, "Judging clips")):
        request = GenerateRequest(
            prompt=scene.caption(),
            seed=seed + index,
            num_inference_steps=num_inference_steps,
            reuse=ReuseSettings(mode="dense"),
        )
        frames = generate_frames(model, resolve(request, model.spec)).frames
        on_clip(frames)
        verdicts.append(judge(frames))
    return verdicts


def main(
    model: Annotated[Path, typer.Option(help="Pipeline folder.")] = BUILTIN_MODEL_FOLDER,
    clips: Annotated[int, typer.Option(min=2, help="How many fresh captions.")] = 100,
    seed: Annotated[int, typer.Option(help="Of captions and noise.")] = 1_000_000,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; the model's own by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
    frames_file: Annotated[Path | None, typer.Option("--frames", help="Write all clips to this .npz file.")] = None,
) -> None:
    """Print which share of fresh captions the model gets right, by the automatic judge."""
    console = Console(highlight=False)
    scenes = fresh_scenes(clips, seed)
    kept: list[np.ndarray] = []
    verdicts = judge_model(load_model(find_model(str(model))), scenes, seed, steps, kept.append)
    result = evaluate(scenes, verdicts)
    for caption, verdict in result.wrong:
        console.print(f"wrong: {caption}\n       {verdict}", soft_wrap=True)
    rates = ", ".join(f"{name} {rate:.0%}" for name, rate in result.right.items())
    console.print(f"{result.clips} clips: {rates}; against shuffled captions {result.shuffled:.0%}", soft_wrap=True)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    if frames_file is not None:
        np.savez_compressed(frames_file, frames=np.stack(kept))


if __name__ == "__main__":
    typer.run(main)
