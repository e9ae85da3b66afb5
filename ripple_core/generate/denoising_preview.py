"""Small videos of what a run is on its way to, made between its denoising steps."""

import io
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ripple_core.contract.request import ResolvedRequest
from ripple_core.generate.load import LoadedModel
from ripple_core.generate.memory import forget

logger = logging.getLogger(__name__)

_MOST_PREVIEWS = 8
_LONGEST_SIDE_PIXELS = 128
_WEBP_QUALITY = 60

# Told the denoising steps finished, and given the frames as animated WebP.
PreviewCallback = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Viewer:
    """Who watches one job: frames per second of its video, and what is given its previews."""

    fps: int
    show: PreviewCallback


def preview_steps(num_steps: int) -> range:
    """After which denoising steps, counted from 1: eight at most, and not after the last one, which the video follows.

    Nor after the first one: an estimate needs latents from before its step, and a pipeline tells those from after.
    """
    every = math.ceil(num_steps / _MOST_PREVIEWS)
    return range(max(every, 2), num_steps, every)


def estimate_x0(before: Tensor, after: Tensor, sigma_before: float, sigma_after: float) -> Tensor:
    """The clean latents that a step of flow matching heads for, ``x0 = x - sigma * dx / dsigma``.

    Exact for a step of Euler's method, and close for one of several terms, such as UniPC's.

    Args:
        before: latents before the step, of any shape.
        after: latents after it, of the same shape.
        sigma_before: noise level before the step, 0 to 1.
        sigma_after: noise level after it, below the other.
    """
    velocity = (after - before) / (sigma_after - sigma_before)
    return after - sigma_after * velocity


class DenoisingPreviews:
    """Makes the previews of one run.

    None are made where they are not to be had: with a scheduler that is none of flow matching, and with a VAE that
    hooks move to the device and back, since those would move the transformer too. An attempt that fails is the last.

    Args:
        model: that runs; its VAE decodes the previews as it is now, whatever is put on it for the video itself.
        request: of any job of the run, for what they have in common.
        viewers: those who want previews, by the place of their job in the run.
        first_frame: that the video begins from.
    """

    def __init__(
        self,
        model: LoadedModel,
        request: ResolvedRequest,
        viewers: Mapping[int, Viewer],
        first_frame: Image.Image | None = None,
    ) -> None:
        self._model = model
        self._decode = model.pipe.vae.decode
        self._viewers = {} if _has_hooks(model.pipe.vae) else viewers
        self._steps = preview_steps(request.num_inference_steps)
        # These pipelines put the image into the latents when the loop has ended; until then its place holds anything.
        self._first_frame = first_frame if model.pipe.config.get("expand_timesteps") else None
        self._first_latents: Tensor | None = None
        self._before: dict[int, Tensor] = {}

    def are_due(self, step: int) -> bool:
        """Whether `show` would show something after this step, counted from 1."""
        return bool(self._before) and step in self._steps and self._sigmas(step) is not None

    def show(self, step: int, latents: Mapping[int, Tensor]) -> float:
        """Decode and show the jobs' previews.

        Args:
            step: the one just finished, counted from 1.
            latents: ``[channels, frames, height, width]`` of the jobs that go on, by job.

        Returns:
            Seconds that this took, without those for which the device was still at the step.
        """
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        began, sigmas = time.monotonic(), self._sigmas(step)
        assert sigmas is not None
        for number, after in latents.items():
            if number in self._before and (content := self._content(number, after, sigmas)):
                self._viewers[number].show(step, content)
        return time.monotonic() - began

    def remember(self, step: int, latents: Mapping[int, Tensor]) -> None:
        """Call after every step: keeps what the previews of the next one need."""
        wanted = latents if step + 1 in self._steps else {}
        self._before = {number: item for number, item in wanted.items() if number in self._viewers}

    def _content(self, number: int, after: Tensor, sigmas: tuple[float, float]) -> bytes | None:
        if number not in self._viewers:
            return None
        try:
            frames = self._frames(estimate_x0(self._before[number], after, *sigmas))
            return _webp(frames, self._viewers[number].fps)
        # Whatever goes wrong, with memory or with the VAE: no video shall fail for want of its previews.
        except Exception as error:  # noqa: BLE001
            logger.warning("a preview could not be made, and no more are tried: %r", error)
            self._viewers = {}
            forget(error, self._model)
            return None

    @torch.no_grad()
    def _frames(self, x0: Tensor) -> np.ndarray:
        """As WanPipeline decodes, but small; uint8 ``[frames, height, width, 3]``."""
        vae = self._model.pipe.vae
        small = _shrunk(x0, vae.config.scale_factor_spatial).to(vae.device, vae.dtype)
        mean, std = (
            small.new_tensor(values).view(-1, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        latents = (small * std + mean)[None]
        if self._first_frame is not None:
            if self._first_latents is None:
                self._first_latents = self._encoded(self._first_frame, latents.shape)
            latents[:, :, :1] = self._first_latents
        video = self._decode(latents, return_dict=False)[0][0]
        pixels = ((video.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(1, 2, 3, 0).cpu().numpy()

    def _encoded(self, first_frame: Image.Image, shape: torch.Size) -> Tensor:
        """Latents of the image alone, ``[1, channels, 1, height, width]``."""
        vae = self._model.pipe.vae
        height, width = (size * vae.config.scale_factor_spatial for size in shape[-2:])
        image = np.asarray(first_frame.resize((width, height), Image.Resampling.LANCZOS))
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None, :, None].to(vae.device, vae.dtype)
        encoded: Tensor = vae.encode(pixels / 127.5 - 1).latent_dist.mode()
        return encoded

    def _sigmas(self, step: int) -> tuple[float, float] | None:
        """Noise levels before and after a step; None unless they are of flow matching, which begins at 1 or below."""
        sigmas = getattr(self._model.pipe.scheduler, "sigmas", None)
        if sigmas is None or len(sigmas) <= step or float(sigmas[0]) > 1:
            return None
        before, after = float(sigmas[step - 1]), float(sigmas[step])
        return (before, after) if 0 <= after < before else None


def _has_hooks(vae: torch.nn.Module) -> bool:
    """Whether accelerate or diffusers runs something of its own before the VAE or its parts."""
    return any(hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") for part in vae.modules())


def _shrunk(latents: Tensor, pixels_per_latent: int) -> Tensor:
    """To half their height and width or less, and to no more than 128 pixels, by means over areas.

    Of the ways to shrink latents this one came closest to the whole frames shrunk, by eye and by PSNR.
    """
    height, width = latents.shape[-2:]
    longest = max(height, width)
    target = min(longest // 2, _LONGEST_SIDE_PIXELS // pixels_per_latent)
    size = [max(side * target // longest, 1) for side in (height, width)]
    # Frames in the place of a batch.
    return functional.interpolate(latents.transpose(0, 1), size=size, mode="area").transpose(0, 1)


def _webp(frames: np.ndarray, fps: int) -> bytes:
    first, *others = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    first.save(
        content,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=round(1000 / fps),
        loop=0,
        quality=_WEBP_QUALITY,
    )
    return content.getvalue()
