"""The latent grid that video tokens lie on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LatentGrid:
    """Tokens of one video, flattened with x fastest, then y, then t."""

    frames: int
    height: int
    width: int

    @property
    def num_tokens(self) -> int:
        """Length of the flattened sequence."""
        return self.frames * self.height * self.width
