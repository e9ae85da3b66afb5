"""The shape of a video transformer and its VAE, and the FLOPs that follow from it."""

from pydantic import BaseModel, ConfigDict


class Architecture(BaseModel):
    """What tells the work of one forward call; a multiply-add counts as two FLOPs.

    Attributes:
        num_layers: of the transformer.
        num_heads: of each self-attention; `num_heads * head_dim` is the width of a token.
        head_dim: of each head.
        ffn_dim: width inside the feed-forward part.
        patch_size: latent frames, rows and columns of one token.
        vae_spatial: pixels of a latent's side.
        vae_temporal: frames of a latent; the first frame has one of its own.
    """

    model_config = ConfigDict(frozen=True)

    num_layers: int
    num_heads: int
    head_dim: int
    ffn_dim: int
    patch_size: tuple[int, int, int]
    vae_spatial: int
    vae_temporal: int

    def tokens(self, width: int, height: int, num_frames: int) -> int:
        """Video tokens of one attention call: latent frames x rows x columns, in patches."""
        frames, rows, columns = self.patch_size
        latent_frames = (num_frames - 1) // self.vae_temporal + 1
        return (latent_frames // frames) * (height // self.vae_spatial // rows) * (width // self.vae_spatial // columns)

    def attention_flops(self, tokens: int) -> int:
        """QK^T and PV of the video self-attention in one forward call of the transformer."""
        return 4 * tokens**2 * self._width * self.num_layers

    def linear_flops(self, tokens: int) -> int:
        """What is linear in the tokens: q, k, v, out, the feed-forward part, and cross-attention's q and out."""
        self_attention, cross_attention = 8 * self._width**2, 4 * self._width**2
        feed_forward = 4 * self._width * self.ffn_dim
        return (self_attention + cross_attention + feed_forward) * tokens * self.num_layers

    @property
    def _width(self) -> int:
        return self.num_heads * self.head_dim
