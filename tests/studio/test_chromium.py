"""The browser that the studio's tests need: it shows text and plays our videos, and its errors fail a test."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from fleet import until
from PIL import Image
from playwright.sync_api import Page, expect

from ripple_core.contract.request import OutputSettings
from ripple_core.generate import write_video

PAGE = """<!doctype html>
<html lang="en"><title>Page</title><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; img-src data:">
<link rel="icon" href="data:,">
<main><h1>Heading</h1><video src="video.mp4" width="96" height="64" muted loop></video></main>
"""


PLAY = """async () => {
  const video = document.querySelector("video");
  await video.play();
  while (video.currentTime < 0.2) await new Promise(resolve => { video.ontimeupdate = resolve; });
}"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    frames = np.random.default_rng(0).integers(0, 255, (16, 32, 48, 3), dtype=np.uint8)
    write_video(frames, folder / "video.mp4", 8, OutputSettings(format="mp4"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_video_plays(page: Page, site: str) -> None:
    page.goto(site)
    expect(page.locator("video")).not_to_have_js_property("readyState", 0)
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(2)
    # Not wait_for_function, which needs a policy that allows eval.
    page.evaluate(PLAY)


def test_text_is_seen(page: Page, site: str, screenshot: Callable[..., Path]) -> None:
    page.goto(site)
    page.evaluate("document.querySelector('video').remove()")
    with Image.open(screenshot("text")) as picture:
        darkest, lightest = picture.convert("L").getextrema()
    assert (darkest, lightest) == (0, 255)


def test_axe_runs_under_a_strict_policy(page: Page, site: str) -> None:
    page.goto(site)
    assert Axe().run(page).violations_count == 0


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("setTimeout(() => { throw Error('thrown') })", "thrown"),
        ("console.error('logged')", "logged"),
        (
            "document.head.append(Object.assign(document.createElement('script'), {text: '1'}))",
            "Content Security Policy",
        ),
        ("fetch('absent')", "404"),
    ],
    ids=["thrown", "logged", "policy", "request"],
)
def test_errors_are_seen(page: Page, site: str, browser_errors: list[str], script: str, error: str) -> None:
    page.goto(site)
    assert browser_errors == []
    page.evaluate(f"{{ {script} }}")
    until(lambda: page.wait_for_timeout(50) or browser_errors, "the error is told", seconds=30)
    # Chromium may tell of a violation in two lines.
    assert any(error in told for told in browser_errors)
    browser_errors.clear()
