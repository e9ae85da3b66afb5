"""Attention of real models at the sizes of their videos."""

from dataclasses import dataclass

from ripple_core.attention import LatentGrid


@dataclass(frozen=True)
class VideoSize:
    """One self-attention call of one video.

    Attributes:
        heads, head_dim: of the model.
        text: tokens before and after the video's in the same attention.
    """

    grid: LatentGrid
    heads: int
    head_dim: int
    text: tuple[int, int] = (0, 0)

    @property
    def tokens(self) -> int:
        """Text included."""
        return self.grid.num_tokens + sum(self.text)


VIDEO_SIZES = {
    "cogvideox-5b": VideoSize(LatentGrid(13, 30, 45), heads=48, head_dim=64, text=(226, 0)),
    "wan-1.3b-480p": VideoSize(LatentGrid(21, 30, 52), heads=12, head_dim=128),
    "wan-14b-720p": VideoSize(LatentGrid(21, 45, 80), heads=40, head_dim=128),
    "hunyuan-720p": VideoSize(LatentGrid(33, 45, 80), heads=24, head_dim=128, text=(0, 256)),
    # The length at which the fastest published sparse kernel was measured.
    "128k": VideoSize(LatentGrid(32, 64, 64), heads=24, head_dim=128),
}
