"""Which clips a bench renders, and the folder that keeps them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ripple_core.attention import LatentGrid, ReuseProfile
from ripple_core.contract.errors import InvalidRequest, ModelLoadFailed, Violation
from ripple_core.contract.request import GenerateRequest, ResolvedRequest, ReuseSettings
from ripple_core.contract.validate import resolve
from ripple_core.generate import LoadedModel
from ripple_core.integrate import transformers_of
from ripple_core.integrate.families import family_of

_RUN_FILE = "run.json"


@dataclass(frozen=True)
class ClipSet:
    """Prompts, seeds and sizes.

    Args:
        prompts: one clip each, times seeds_per_prompt.
        first_seed: the clips count up from it.
        seeds_per_prompt: clips of each prompt.
        num_inference_steps: None for the model's own default; likewise width, height and num_frames.
    """

    prompts: Sequence[str]
    first_seed: int = 0
    seeds_per_prompt: int = 1
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None

    def __len__(self) -> int:
        return len(self.prompts) * self.seeds_per_prompt

    def requests(self, model: LoadedModel) -> list[ResolvedRequest]:
        """One dense request a clip.

        Raises:
            InvalidRequest: for a size the model does not take.
            ValidationError: for a prompt or number that no model takes.
            ModelLoadFailed: for a pipeline with two transformers, whose FLOPs are not counted here.
        """
        if len(transformers_of(model.pipe)) > 1:
            raise ModelLoadFailed(f"{model.spec.id} has two transformers; only pipelines with one can be measured yet.")
        prompts = [prompt for prompt in self.prompts for _ in range(self.seeds_per_prompt)]
        return [
            resolve(
                GenerateRequest(
                    prompt=prompt,
                    seed=self.first_seed + index,
                    num_inference_steps=self.num_inference_steps,
                    width=self.width,
                    height=self.height,
                    num_frames=self.num_frames,
                    reuse=ReuseSettings(mode="dense"),
                ),
                model.spec,
            )
            for index, prompt in enumerate(prompts)
        ]


def video_grid(model: LoadedModel, request: ResolvedRequest) -> LatentGrid:
    """Of the video's tokens."""
    pipe = model.pipe
    frames = (request.num_frames - 1) // pipe.vae_scale_factor_temporal + 1
    size = (side // pipe.vae_scale_factor_spatial for side in (request.height, request.width))
    latents = torch.empty(1, pipe.transformer.config.in_channels, frames, *size, device="meta")
    grid = family_of(pipe.transformer).grid(pipe.transformer, {"hidden_states": latents})
    assert grid is not None
    return grid


def claim_folder(
    folder: Path,
    field: str,
    model: LoadedModel,
    requests: list[ResolvedRequest],
    profile: ReuseProfile | None = None,
) -> None:
    """Take a new or empty folder, or one that holds a run of the same clips with the same profile.

    Raises:
        InvalidRequest: when it holds a run of others; field names the option that chose the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "timeripple": version("timeripple"),
        "weights": _fingerprint(model),
        "profile": profile.model_dump(mode="json", exclude={"evidence"}) if profile else None,
        "requests": [request.model_dump(mode="json") for request in requests],
    }
    path = folder / _RUN_FILE
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != run:
        message = f"{folder} holds a run with another model, profile, prompts, seeds or sizes; name another folder."
        raise InvalidRequest([Violation(field, message, "a new folder, or one of the same run")])
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def _fingerprint(model: LoadedModel) -> str:
    """Tells one set of weights from another by a few values of every tensor."""
    parameters = model.pipe.transformer.named_parameters()
    sample = {name: parameter.detach().flatten()[:16].float().cpu().numpy().tobytes() for name, parameter in parameters}
    return hashlib.sha256(b"".join(name.encode() + values for name, values in sorted(sample.items()))).hexdigest()
