"""The page where there are several models, one of which begins from an image; no worker has either."""

import io
import re

from fleet import Fleet
from PIL import Image
from playwright.sync_api import Page, expect

NUM_WORKERS = 0
IMAGE_MODEL = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
MODELS = f"""
[[models]]
source = "builtin"

[[models]]
source = "{IMAGE_MODEL}"
"""


def picture() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def test_a_model_brings_its_own_defaults_examples_and_image(page: Page, site: str, fleet: Fleet) -> None:
    page.goto(site)
    expect(page.get_by_label("First frame")).to_have_count(0)
    page.get_by_label("Model").select_option(IMAGE_MODEL)
    expect(page.get_by_label("Width")).to_have_value("832")
    expect(page.get_by_label("Frames", exact=True)).to_have_value("81")
    page.get_by_role("button", name=re.compile("the camera moves slowly forward")).click()
    # It costs the same with any image.
    expect(page.locator(".expectation")).to_contain_text("Not known yet")
    page.get_by_label("First frame").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture()})
    expect(page.get_by_role("img", name="The chosen first frame")).to_be_visible()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("next in line")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Run again with changes").click()
    expect(page.get_by_role("img", name="The chosen first frame")).to_be_visible()
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("next in line")).to_be_visible()
    again, first = (job["request"] for job in fleet.client.get("/jobs").json()["jobs"])
    assert again == first
    assert (first["model"], first["width"]) == (IMAGE_MODEL, 832)
    assert re.fullmatch("[0-9a-f]{64}", first["image_sha256"])
