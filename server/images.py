"""Checks the image a video begins from by decoding it; what it is named or said to be counts for nothing."""

import base64
import binascii
import io
import re
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from ripple_core.contract.errors import InvalidRequest, Violation

MAX_IMAGE_BYTES = 10 * 1024**2
_MAX_PIXELS = 4096 * 4096
_FORMATS = ("PNG", "JPEG", "WEBP")
_ALLOWED = f"a PNG, JPEG or WebP of at most {MAX_IMAGE_BYTES // 1024**2} MiB and {_MAX_PIXELS:,} pixels"
_DATA_URL = re.compile(r"data:[^,;]*(;[^,;]*)*;base64,", re.IGNORECASE)


def read_data_url(text: str, field: str) -> bytes:
    """The bytes of a data URL.

    Raises:
        InvalidRequest: when it is none.
    """
    head = _DATA_URL.match(text[:200])
    if head is None:
        raise _refusal(field, "is not a base64 data URL, such as data:image/png;base64,...; URLs are not fetched")
    try:
        return base64.b64decode(text[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise _refusal(field, "is not base64 after the comma") from None


def as_png(content: bytes, field: str) -> bytes:
    """The picture as an RGB PNG of ours, turned upright: whatever else the file held goes no further.

    Raises:
        InvalidRequest: when it cannot be decoded as one of the formats, or is too large.
    """
    if len(content) > MAX_IMAGE_BYTES:
        raise _refusal(field, f"has {len(content):,} bytes")
    try:
        with warnings.catch_warnings():
            # Pillow warns of very large pictures, which are refused below before they are decoded, and of damages.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise _refusal(field, f"has {image.width}x{image.height} pixels")
                upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise _refusal(field, "is not a picture of a known kind") from None
    except InvalidRequest:
        raise
    except Exception as error:  # noqa: BLE001 - what Pillow raises for damaged files differs with the damage
        raise _refusal(field, f"cannot be decoded ({type(error).__name__})") from None
    # Saving would write colour profiles and comments again.
    upright.info.clear()
    clean = io.BytesIO()
    upright.save(clean, "PNG", compress_level=1)
    return clean.getvalue()


def _refusal(field: str, reason: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, f"{reason}; allowed: {_ALLOWED}", _ALLOWED)])
