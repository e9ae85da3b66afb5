"""A second try of the VAE in tiles, for when memory does not suffice to decode whole frames."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ripple_core.generate.load import LoadedModel
from ripple_core.generate.memory import forget
from ripple_core.generate.no_memory import is_out_of_memory

logger = logging.getLogger(__name__)

# Pixels of a tile's side: diffusers' own, or half of a smaller frame's, but not less than what still shows something.
_TILE, _SMALLEST_TILE = 256, 64
_SETTINGS = (
    "use_tiling",
    *(f"tile_sample_{kind}_{side}" for kind in ("min", "stride") for side in ("height", "width")),
)


@contextmanager
def tiles_where_memory_is_short(model: LoadedModel, on_tiles: Callable[[], None]) -> Iterator[None]:
    """Within, the VAE decodes once more in tiles what it had no memory for; the denoised latents are not lost.

    Tiles overlap and are blended, which leaves small differences to frames decoded whole.

    Args:
        model: its VAE is afterwards as it was before.
        on_tiles: called before the second try.
    """
    vae = model.pipe.vae
    decode_whole = vae.decode
    settings = {name: getattr(vae, name) for name in _SETTINGS}

    def decode(latents: Tensor, return_dict: bool = True) -> Any:
        sizes = [size * vae.spatial_compression_ratio for size in latents.shape[-2:]]
        tiles = [_tile(size, vae.spatial_compression_ratio) for size in sizes]
        try:
            return decode_whole(latents, return_dict=return_dict)
        except (MemoryError, RuntimeError) as error:
            if (
                vae.use_tiling
                or not is_out_of_memory(error)
                or all(tile >= size for tile, size in zip(tiles, sizes, strict=True))
            ):
                raise
            logger.warning("out of memory while decoding, once more in tiles: %s", error)
            forget(error, model)
        on_tiles()
        vae.enable_tiling(*tiles, *(tile * 3 // 4 for tile in tiles))
        return decode_whole(latents, return_dict=return_dict)

    vae.decode = decode
    try:
        yield
    finally:
        del vae.decode
        for name, value in settings.items():
            setattr(vae, name, value)


def _tile(size: int, compression: int) -> int:
    """Side of a tile; it and three quarters of it, the distance between tiles, are whole latents."""
    unit = 4 * compression
    return max(min(_TILE, size // 2), _SMALLEST_TILE) // unit * unit
