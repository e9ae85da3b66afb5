"""The page in a real browser while a real worker generates."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from fleet import Fleet
from playwright.sync_api import Page, expect

NUM_WORKERS = 1
# Where the built-in model takes a moment for each denoising step, and reuse has something to save.
SIZES = {"Width": "64", "Height": "64", "Frames": "9", "Steps": "40"}


@pytest.fixture
def form(page: Page, fleet: Fleet) -> Page:
    """The page with a small video asked for."""
    page.goto(f"http://127.0.0.1:{fleet.port}/")
    for name, value in SIZES.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label("Mode", exact=True).select_option("ripple")
    return page


def generate(form: Page) -> str:
    """Id of the job that the form has made."""
    form.get_by_role("button", name="Generate", exact=True).click()
    form.wait_for_url(re.compile(r"#/jobs/\w{28}$"))
    return form.url[-28:]


def test_a_video_is_created_watched_and_compared(form: Page, fleet: Fleet, screenshot: Callable[..., Any]) -> None:
    """With its preview and every step on the way."""
    job_id = generate(form)
    expect(form.get_by_text(re.compile(r"Denoising, step \d+ of 40, about .* left"))).to_be_visible(timeout=120_000)
    preview = form.get_by_role("img", name=re.compile("Small preview"))
    expect(preview).to_be_visible(timeout=60_000)
    assert preview.evaluate("(image) => image.naturalWidth") > 0
    screenshot("progress")
    expect(form.locator("video")).to_be_visible(timeout=120_000)
    metrics = fleet.job(job_id)["metrics"]
    saved = round(100 * metrics["attention"]["savings"])
    assert saved > 0
    expect(form.locator(".summary")).to_contain_text(f"{saved} % of attention work saved")
    duration = form.evaluate("document.querySelector('video').duration")
    assert duration == pytest.approx(metrics["output"]["duration_s"], abs=0.01)
    form.get_by_role("button", name="Compare with dense").click()
    expect(form.get_by_role("cell", name=re.compile("dB|equal"))).to_be_visible(timeout=120_000)
    expect(form.get_by_role("row", name=re.compile("^ ?dense"))).to_contain_text("0 %")
    assert len(form.locator(".stage video").all()) == 2
    screenshot("compared", full_page=True)


def test_a_running_job_survives_a_reload_and_stops_when_it_is_cancelled(form: Page, fleet: Fleet) -> None:
    form.get_by_label("Steps").fill("200")
    job_id = generate(form)
    expect(form.get_by_text(re.compile("Denoising, step"))).to_be_visible(timeout=120_000)
    form.reload()
    expect(form.get_by_text(re.compile("Denoising, step"))).to_be_visible(timeout=60_000)
    form.get_by_role("button", name="Cancel").click()
    expect(form.get_by_text("It was cancelled.")).to_be_visible(timeout=60_000)
    assert fleet.job(job_id)["status"] == "cancelled"
    form.get_by_role("link", name="System").click()
    expect(form.get_by_role("cell", name="timeripple/builtin").first).to_be_visible()
    expect(form.get_by_role("cell", name="idle")).to_be_visible(timeout=60_000)
