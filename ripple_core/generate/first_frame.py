"""The image that a video begins from."""

from pathlib import Path

from PIL import Image, ImageOps


def read_first_frame(path: Path, width: int, height: int) -> Image.Image:
    """Read an image and bring it to the video's size: scaled to cover it, and cropped around the centre.

    Raises:
        OSError: when the file cannot be read.
    """
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
