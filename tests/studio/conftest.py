"""A real browser, driven by Playwright. Not by pytest-playwright, which runs the tests of several files mixed."""

import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import find_chromium
from fleet import Fleet, temporary_fleet
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, sync_playwright

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tells the fixtures whether the test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


# Not for the whole session: Playwright's event loop counts as running in this thread, in which no other can start until
# it ends.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = find_chromium(Path(sys.prefix) / "share" / "chromium")
    if found is None:
        pytest.skip("needs Chromium: neither on the path nor to be had as Debian's package")
    binary, environment = found
    options: dict[str, Any] = {"executable_path": binary, "args": ["--disable-gpu", "--disable-quic"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with sync_playwright() as playwright, playwright.chromium.launch(**options) as running:
            # Playwright's processes have it; the servers that tests start are to do without.
            patch.undo()
            yield running


@pytest.fixture
def artefacts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where the test's screenshots go."""
    folder = os.environ.get("RIPPLE_TEST_ARTEFACTS")
    return Path(folder) / re.sub(r"[^\w.-]+", "-", request.node.nodeid) if folder else tmp_path / "artefacts"


@pytest.fixture
def browser_errors() -> list[str]:
    """What pages threw or logged as errors, violations of their Content-Security-Policy and failed requests included.

    The test fails over what is left in it at the end; one that provokes an error takes it out.
    """
    return []


@pytest.fixture
def new_context(
    request: pytest.FixtureRequest, browser: Browser, browser_errors: list[str], artefacts: Path
) -> Iterator[Callable[..., BrowserContext]]:
    """Makes contexts, each a visitor of its own, with Playwright's options; their pictures stay if the test fails."""
    contexts: list[BrowserContext] = []

    def log(message: ConsoleMessage) -> None:
        if message.type == "error":
            browser_errors.append(f"{message.location['url']}: {message.text}")

    def uncaught(error: WebError) -> None:
        browser_errors.append(f"{error.page.url if error.page else ''}: {error.error}")

    def new(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        context.on("console", log)
        context.on("weberror", uncaught)
        contexts.append(context)
        return context

    yield new
    pages = [page for context in contexts for page in context.pages]
    for number, page in enumerate(pages):
        # What pages have said until now has come once they answer.
        page.title()
        if browser_errors or request.node.stash[FAILED]:
            page.screenshot(path=artefacts / f"failed-{number}.png")
    for context in contexts:
        context.close()
    assert browser_errors == []


@pytest.fixture
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    return new_context()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture
def screenshot(page: Page, artefacts: Path) -> Callable[..., Path]:
    """Keeps a picture of the page, or of another, under a name."""

    def take(name: str, of: Page = page, **options: Any) -> Path:
        path = artefacts / f"{name}.png"
        of.screenshot(path=path, **options)
        return path

    return take


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The API with the file's MODELS, if it says so, and its NUM_WORKERS; without one, jobs end as a test says."""
    with temporary_fleet(request.module.NUM_WORKERS, getattr(request.module, "MODELS", "")) as running:
        yield running


@pytest.fixture
def site(fleet: Fleet) -> str:
    """Address of the page, on an empty store."""
    fleet.redis_client.flushall()
    return f"http://127.0.0.1:{fleet.port}/"
