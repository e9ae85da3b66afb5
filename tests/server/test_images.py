"""Images that videos begin from: judged by decoding, and passed on as PNGs of our own."""

import base64
import io
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ripple_core.contract.errors import InvalidRequest
from server.images import MAX_IMAGE_BYTES, as_png, read_data_url


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 6, height: int = 4, mode: str = "RGB") -> Image.Image:
    image = Image.linear_gradient("L").resize((width, height))
    return image.convert(mode)


def decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(as_png(content, "image")))
    image.load()
    return image


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_picture_keeps_its_pixels(kind: str, options: dict[str, object], mode: str) -> None:
    if (kind, mode) == ("WEBP", "P"):
        pytest.skip("WebP has no palettes")
    image = picture(mode=mode)
    assert decoded(encoded(image, kind, **options)).tobytes() == image.convert("RGB").tobytes()


def test_a_jpeg_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    content = encoded(picture(16, 8), "JPEG", exif=exif)
    assert decoded(content).size == (8, 16)


@given(st.binary(min_size=8, max_size=120))
def test_an_exif_block_of_any_content_does_no_harm(block: bytes) -> None:
    content = encoded(picture(8, 8), "JPEG", exif=b"Exif\0\0" + b"II*\0\x08\0\0\0" + block)
    with suppress(InvalidRequest):
        assert as_png(content, "image").startswith(b"\x89PNG")


def test_nothing_but_pixels_goes_further() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("secret", "where the photo was taken")
    clean = as_png(encoded(picture(), "PNG", pnginfo=info, icc_profile=b"profile" * 10), "image")
    assert b"secret" not in clean
    assert b"iCCP" not in clean


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="not a picture of a known kind"):
        as_png(encoded(picture(), kind), "image")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_or_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        as_png(content, "image")


@given(st.data(), st.sampled_from(["PNG", "JPEG", "WEBP"]))
def test_a_damaged_picture_is_decoded_or_refused(data: st.DataObject, kind: str) -> None:
    content = bytearray(encoded(picture(32, 32), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(InvalidRequest):
        assert as_png(cut, "image").startswith(b"\x89PNG")


def test_a_picture_that_claims_to_be_huge_is_not_decoded() -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    with pytest.raises(InvalidRequest, match=r"30000x30000 pixels|not a picture"):
        as_png(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "image")


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="bytes"):
        as_png(b"x" * (MAX_IMAGE_BYTES + 1), "image")


@given(st.binary(max_size=100))
def test_data_urls_are_read(content: bytes) -> None:
    text = base64.b64encode(content).decode()
    for head in ("data:image/png;base64,", "DATA:;base64,", "data:image/png;charset=x;base64,"):
        assert read_data_url(head + text, "image") == content


@pytest.mark.parametrize(
    "text", ["", "x", "data:image/png,abc", "data:image/png;base64,a", "data:;base64,a!", "http://x/a.png"]
)
def test_what_is_no_data_url_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_data_url(text, "image")
