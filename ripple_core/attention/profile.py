"""Where a model bears reuse: factors on the error budget by layer and by part of the denoising loop."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Factor = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Factors = Annotated[tuple[Factor, ...], Field(min_length=1)]


class ProfileEvidence(BaseModel):
    """What a calibration measured at aggressiveness 0.5, on clips that set the scale and no other factor.

    PSNR is the median over clips against the dense ones. `uniform_*` is the same mode without a profile, at the largest
    budget found that saves no more.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    clips: int
    num_inference_steps: int
    video_tokens: int
    savings: float
    psnr_db: float
    uniform_savings: float
    uniform_psnr_db: float


class ReuseProfile(BaseModel):
    """Scales mode `ripple`'s error budget: budget of a call = dial * schedule * scale * layer factor * step factor.

    Attributes:
        layer_factors: one for each self-attention layer.
        step_factors: one for each of as many equal parts of the denoising loop.
        scale: for all calls; sets what the middle of the dial means.
        evidence: of the calibration that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer_factors: Factors
    step_factors: Factors = (1.0,)
    scale: Factor = 1.0
    evidence: ProfileEvidence | None = None

    def factor(self, layer: int, step: int, num_steps: int) -> float:
        """The factor on the budget of one call; layer, step and num_steps as in `AttentionCall`."""
        part = part_of_loop(step, num_steps, len(self.step_factors))
        return self.scale * self.layer_factors[layer] * self.step_factors[part]


def part_of_loop(step: int, num_steps: int, parts: int) -> int:
    """Which of the equal parts of the denoising loop a step lies in, 0..parts - 1."""
    return step * parts // num_steps
