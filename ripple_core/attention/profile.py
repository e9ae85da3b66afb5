"""Where a model bears reuse: factors on the error budget by layer and by part of the denoising loop."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Factor = Annotated[float, Field(gt=0)]
Factors = Annotated[tuple[Factor, ...], Field(min_length=1)]


class ProfileEvidence(BaseModel):
    """What a calibration measured, on clips that its factors were not derived from, at aggressiveness 0.5.

    PSNR is the median over clips against the dense ones. `uniform_*` is the same mode without a profile, at a budget
    that executes at least as many FLOPs.
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
        part = step * len(self.step_factors) // num_steps
        return self.scale * self.layer_factors[layer] * self.step_factors[part]
