"""The shortest way from a prompt to a video, for scripts and notebooks."""

from typing import Any

from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest, ReuseMode
from ripple_core.contract.validate import resolve
from ripple_core.generate.load import LoadedModel, load_model
from ripple_core.generate.run import GeneratedFrames, generate_frames


def text_to_video(
    prompt: str,
    model: LoadedModel | str = "builtin",
    *,
    negative_prompt: str = "",
    width: int | None = None,
    height: int | None = None,
    num_frames: int | None = None,
    fps: int | None = None,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    seed: int | None = None,
    aggressiveness: float | None = None,
    mode: ReuseMode | None = None,
) -> GeneratedFrames:
    """Generate one video; as the last expression of a notebook's cell it plays there, with its latency and savings.

    What is left out takes the model's default.

    Args:
        prompt: what the video shows.
        model: from `load_model`; or "builtin", a name of `ripple models` or a pipeline's folder, loaded for this call.
        negative_prompt: what it must not show.
        width: pixels.
        height: pixels.
        num_frames: of the video.
        fps: frames per second.
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 turns it off.
        seed: same seed, same video; drawn if omitted.
        aggressiveness: 0 = stock pipeline .. 1 = most reuse.
        mode: form of reuse.

    Raises:
        ValidationError: of pydantic, a ValueError, when a value can suit no model.
        InvalidRequest: when this model does not take the request; says what would do.
        UnknownModel: when there is no such model.
        ModelLoadFailed: when it cannot be loaded.
        InvalidFrames: when what comes out is no video.
        OutOfMemory: with what would fit.
    """
    asked = {
        "width": width,
        "height": height,
        "num_frames": num_frames,
        "fps": fps,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "seed": seed,
        "reuse": _given({"aggressiveness": aggressiveness, "mode": mode}),
    }
    request = GenerateRequest.model_validate({"prompt": prompt, "negative_prompt": negative_prompt} | _given(asked))
    # Before a model is loaded in vain.
    spec = find_model(model) if isinstance(model, str) else model.spec
    resolved = resolve(request, spec)
    return generate_frames(load_model(spec) if isinstance(model, str) else model, resolved)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
