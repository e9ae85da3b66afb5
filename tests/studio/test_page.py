"""The page in a real browser, on jobs that have ended or wait: no worker runs."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from ended_jobs import FPS, end, fail, finish, moving_square, submit
from fleet import Fleet
from playwright.sync_api import BrowserContext, Page, expect

from ripple_core.contract.job import JobError
from ripple_core.contract.keys import ApiKeys
from ripple_core.generate.difference import compare_frames

NUM_WORKERS = 0
MARKUP = '<img src=x onerror="alert(1)"><script>alert(2)</script> & "<b>bold</b>"'
NAMES = {
    "": "create",
    "jobs/{done}": "done",
    "jobs/{queued}": "queued",
    "compare/{dense},{done}": "compare",
    "gallery": "gallery",
    "system": "system",
    "nowhere": "nowhere",
}
FRAMES = "[...document.querySelectorAll('.stage video')].map((video) => Math.floor(video.currentTime * 8))"
# Until both have gone on and begun again.
LOOPED = """async () => {
  const videos = [...document.querySelectorAll(".stage video")];
  for (const video of videos) {
    let last = 0;
    while (video.currentTime >= last) {
      last = video.currentTime;
      await new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    }
  }
}"""
BRIGHTEST = """() => {
  const canvas = document.querySelector(".stage canvas");
  return Math.max(...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    .filter((_, index) => index % 4 !== 3));
}"""
PLAYED = """async () => {
  const video = document.querySelector("video");
  const from = video.currentTime;
  while (video.currentTime === from) await new Promise((resolve) => { video.ontimeupdate = resolve; });
  return [video.duration, video.videoWidth, video.videoHeight];
}"""


@pytest.fixture
def jobs(fleet: Fleet, site: str) -> dict[str, str]:
    """One of each kind."""
    del site
    return {
        "dense": finish(fleet, moving_square(), savings=0.0, prompt="a square", reuse={"mode": "dense"}),
        "done": finish(fleet, moving_square(shift=2), prompt="a square"),
        "failed": fail(fleet, JobError(code="out_of_memory", message="Use 64x64."), prompt="too much"),
        "queued": submit(fleet, prompt="still waiting"),
    }


def test_a_finished_video_plays_and_its_savings_are_told_in_words(
    page: Page, site: str, jobs: dict[str, str], screenshot: Callable[..., Any]
) -> None:
    page.goto(f"{site}#/jobs/{jobs['done']}")
    expect(page.get_by_text("62 % of attention work saved; made in 1.5 s.")).to_be_visible()
    assert page.evaluate(PLAYED) == [17 / FPS, 96, 64]
    bars = page.get_by_role("img", name=re.compile("Saved by denoising step"))
    expect(bars).to_have_attribute("aria-label", re.compile(r"step 1: 62\s%, step 2: 62\s%"))
    page.get_by_text("All of it as JSON").click()
    assert json.loads(page.locator("pre").inner_text())["id"] == jobs["done"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"timeripple-{jobs['done']}.mp4"
    screenshot("job", full_page=True)


def test_where_the_time_without_reuse_is_known_it_is_told(page: Page, site: str, fleet: Fleet) -> None:
    job_id = finish(fleet, moving_square())
    key = f"ripple:job:{job_id}"
    metrics = json.loads(fleet.redis_client.hget(key, "metrics"))
    fleet.redis_client.hset(key, "metrics", json.dumps(metrics | {"dense_denoise_estimate_s": 3.0}))
    page.goto(f"{site}#/jobs/{job_id}")
    expect(page.get_by_text("62 % of attention work saved; made in 1.5 s instead of about 3.0 s.")).to_be_visible()


def test_two_videos_are_compared_in_lock_step_and_measured(
    page: Page, site: str, jobs: dict[str, str], screenshot: Callable[..., Any]
) -> None:
    page.goto(f"{site}#/compare/{jobs['dense']},{jobs['done']}")
    table = page.get_by_role("region", name="Figures")
    cells = table.get_by_role("row").nth(2).get_by_role("cell")
    expect(cells.nth(4)).to_have_text(re.compile("dB"), timeout=30_000)
    truth = compare_frames(moving_square(), moving_square(shift=2))
    assert truth.psnr_db is not None
    assert float(cells.nth(4).inner_text().split()[0]) == pytest.approx(truth.psnr_db, abs=0.5)
    assert float(cells.nth(5).inner_text()) == pytest.approx(truth.ssim, abs=0.01)
    expect(page.get_by_text(re.compile(r"saved 62\s% .* took 1.5\ss, about as long as the reference"))).to_be_visible()
    page.evaluate(LOOPED)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    first, second = page.evaluate(FRAMES)
    assert first == second
    page.get_by_role("slider", name=re.compile("Frame")).fill("9")
    expect(page.get_by_text("10 of 17")).to_be_visible()
    page.get_by_role("button", name="Frame forward").click()
    expect(page.get_by_text("11 of 17")).to_be_visible()
    assert page.evaluate(FRAMES) == [10, 10]
    page.get_by_label("Difference", exact=True).check()
    # |60 - 230| at the square's edges.
    assert page.evaluate(BRIGHTEST) == pytest.approx(170, abs=12)
    page.get_by_label("Amplified").select_option("8")
    screenshot("difference")
    page.get_by_label("Wipe").check()
    page.get_by_role("slider", name=re.compile("Where one video ends")).fill("25")
    assert "25%" in page.locator(".stage").get_attribute("style")
    screenshot("wipe", full_page=True)


def test_several_values_of_the_dial_make_a_curve(
    page: Page, site: str, fleet: Fleet, screenshot: Callable[..., Any]
) -> None:
    ids = [finish(fleet, moving_square(), savings=0.0, reuse={"mode": "dense"})]
    for dial, savings, shift in ((0.25, 0.3, 1), (0.75, 0.7, 3)):
        ids.append(finish(fleet, moving_square(shift), savings, reuse={"aggressiveness": dial}))
    page.goto(f"{site}#/compare/{','.join(ids)}")
    curve = page.get_by_role("img", name=re.compile(r"aggressiveness 0.25: 30 % saved, PSNR \d\d"))
    expect(curve).to_be_visible(timeout=30_000)
    expect(curve).to_have_attribute("aria-label", re.compile(r"aggressiveness 0.75: 70 % saved, PSNR \d\d"))
    page.get_by_role("radio", name="Show aggressiveness 0.75").check()
    expect(page.get_by_text(re.compile(r"aggressiveness 0.75 saved 70\s%"))).to_be_visible()
    screenshot("curve", full_page=True)


def test_equal_videos_are_told_to_be_equal(page: Page, site: str, fleet: Fleet) -> None:
    ids = [finish(fleet, moving_square(), reuse={"aggressiveness": dial}) for dial in (0.0, 0.5)]
    page.goto(f"{site}#/compare/{','.join(ids)}")
    expect(page.get_by_role("cell", name="equal")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("cell", name="1.000")).to_be_visible()


def test_one_click_asks_for_the_dense_twin_of_the_same_seed(page: Page, site: str, fleet: Fleet) -> None:
    job_id = finish(fleet, moving_square(), seed=7, quality_check=True)
    page.goto(f"{site}#/jobs/{job_id}")
    page.get_by_role("button", name="Compare with dense").click()
    expect(page.get_by_text("Waiting for a worker, next in line")).to_be_visible()
    (dense,) = fleet.client.get("/jobs?status=queued").json()["jobs"]
    mine = fleet.job(job_id)["request"]
    assert dense["request"] == mine | {"reuse": mine["reuse"] | {"mode": "dense"}, "quality_check": False}
    page.get_by_role("combobox", name="Aggressiveness").select_option("1")
    page.get_by_role("button", name="Add to the comparison").click()
    expect(page).to_have_url(re.compile(r"#/compare/(\w{28},){2}\w{28}$"))
    newest = fleet.client.get("/jobs?status=queued").json()["jobs"][0]
    assert (newest["request"]["seed"], newest["request"]["reuse"]["aggressiveness"]) == (7, 1)
    page.get_by_role("button", name="Add all of 0.25, 0.75").click()
    expect(page).to_have_url(re.compile(r"#/compare/(\w{28},){4}\w{28}$"))
    page.goto(f"{site}#/jobs/{job_id}")
    page.get_by_role("button", name="Compare with dense").click()
    expect(page).to_have_url(f"{site}#/compare/{dense['id']},{job_id}")


def test_a_second_click_asks_for_nothing_twice(page: Page, site: str, fleet: Fleet) -> None:
    page.goto(f"{site}#/jobs/{finish(fleet, moving_square())}")
    page.get_by_role("button", name="Compare with dense").dblclick()
    expect(page.get_by_text("next in line")).to_be_visible()
    assert len(fleet.client.get("/jobs?status=queued").json()["jobs"]) == 1


def test_cancelling_too_late_deletes_nothing(page: Page, site: str, fleet: Fleet, browser_errors: list[str]) -> None:
    job_id = submit(fleet, prompt="nearly done")
    page.goto(f"{site}#/gallery")
    button = page.get_by_role("button", name="Cancel: nearly done")
    expect(button).to_be_visible()
    page.route("**/jobs?status=*", lambda route: route.abort())
    end(fleet, job_id, moving_square())
    button.click()
    page.wait_for_timeout(500)
    assert fleet.job(job_id)["status"] == "succeeded"
    browser_errors.clear()


def test_the_gallery_filters_deletes_and_opens_the_form_again(
    page: Page, site: str, fleet: Fleet, jobs: dict[str, str], screenshot: Callable[..., Any]
) -> None:
    page.goto(f"{site}#/gallery")
    cards = page.locator(".gallery li")
    expect(cards).to_have_count(3)
    expect(page.locator("img.thumbnail").first).to_have_js_property("naturalWidth", 96)
    expect(page.get_by_role("link", name="still waiting")).to_be_visible()
    screenshot("gallery")
    page.get_by_label("Status").select_option("failed")
    expect(cards).to_have_count(1)
    page.get_by_label("Status").select_option("")
    page.get_by_label("Search").fill("square dense")
    expect(cards).to_have_count(1)
    page.get_by_label("Search").fill("")
    page.reload()
    expect(cards).to_have_count(3)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete: too much").click()
    expect(cards).to_have_count(2)
    assert fleet.get(f"/jobs/{jobs['failed']}") == 404
    cards.first.get_by_role("button", name=re.compile("Run again")).click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a square")
    expect(page.get_by_label("Keep this seed")).to_be_checked()
    expect(page.get_by_label("Seed number")).to_have_value("1")


def test_the_gallery_shows_more_when_asked(page: Page, site: str, fleet: Fleet) -> None:
    for number in range(26):
        fail(fleet, JobError(code="stalled", message="x"), prompt=f"number {number}")
    page.goto(f"{site}#/gallery")
    expect(page.locator(".gallery li")).to_have_count(24)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".gallery li")).to_have_count(26)


def test_a_queued_job_shows_its_place_and_can_be_cancelled(page: Page, site: str, fleet: Fleet) -> None:
    submit(fleet, prompt="the first")
    second = submit(fleet, prompt="the second")
    page.goto(f"{site}#/gallery")
    expect(page.locator(".queue li").nth(1)).to_contain_text("the second")
    expect(page.locator(".queue li").nth(1)).to_contain_text("1 before it")
    page.get_by_role("button", name="Cancel: the second").click()
    expect(page.locator(".queue li")).to_have_count(1)
    assert fleet.job(second)["status"] == "cancelled"
    page.goto(f"{site}#/jobs/{second}")
    expect(page.get_by_text("It was cancelled.")).to_be_visible()


def test_the_place_in_the_queue_moves(page: Page, site: str, fleet: Fleet) -> None:
    first, second = submit(fleet), submit(fleet)
    page.goto(f"{site}#/jobs/{second}")
    expect(page.get_by_text("1 before it")).to_be_visible()
    fleet.client.post(f"/jobs/{first}/cancel")
    expect(page.get_by_text("next in line")).to_be_visible()


def test_an_answer_that_fails_at_the_end_is_asked_for_again(
    page: Page, site: str, fleet: Fleet, browser_errors: list[str]
) -> None:
    job_id = submit(fleet)
    page.goto(f"{site}#/jobs/{job_id}")
    expect(page.get_by_text("next in line")).to_be_visible()
    page.route(f"**/jobs/{job_id}", lambda route: route.fulfill(status=503, json={"detail": "Away."}), times=2)
    fleet.client.post(f"/jobs/{job_id}/cancel")
    expect(page.get_by_text("It was cancelled.")).to_be_visible(timeout=20_000)
    # Whatever is still under way ends with the page.
    page.goto("about:blank")
    assert all("503" in error for error in browser_errors)
    browser_errors.clear()


@pytest.mark.parametrize("place", ["jobs/..%2Fmodels", "jobs/%", "compare/x,y", "jobs/", "%00"])
def test_made_up_addresses_lead_nowhere(page: Page, site: str, place: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site}#/{place}")
    expect(page.get_by_role("heading", name="No such page")).to_be_visible()
    assert [url for url in asked if "/studio/" not in url and url not in (f"{site}#/{place}", site)] == []


def test_a_failure_says_why_and_what_to_do(page: Page, site: str, jobs: dict[str, str]) -> None:
    page.goto(f"{site}#/jobs/{jobs['failed']}")
    expect(page.get_by_text("Use 64x64.", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Run again", exact=True)).to_be_visible()


def test_a_refused_request_names_the_field_and_loses_nothing(
    page: Page, site: str, fleet: Fleet, browser_errors: list[str]
) -> None:
    page.goto(site)
    page.get_by_label("Prompt", exact=True).fill("much too long")
    for name, value in {"Width": "256", "Height": "256", "Frames": "65", "Steps": "200"}.items():
        page.get_by_label(name, exact=True).fill(value)
    # Before it is sent, too.
    expect(page.locator(".expectation")).to_contain_text("at most 5 at this size")
    page.get_by_role("button", name="Generate", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("at most 5 at this size")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("much too long")
    assert fleet.client.get("/jobs").json()["jobs"] == []
    # The browser itself logs refusals, of the estimate too.
    assert all("422" in error for error in browser_errors)
    browser_errors.clear()


def test_a_blank_prompt_is_asked_for_until_there_is_one(page: Page, site: str) -> None:
    page.goto(site)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("   ")
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("Write a prompt first.")
    expect(prompt).to_have_attribute("aria-invalid", "true")
    prompt.fill("x" * 1801)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("1801 of at most 2000 characters")).to_be_visible()


def test_a_missing_job_is_no_dead_end(page: Page, site: str, browser_errors: list[str]) -> None:
    page.goto(f"{site}#/jobs/{'0' * 28}")
    expect(page.get_by_role("alert")).to_contain_text("no job")
    expect(page.get_by_role("link", name="See the videos that are kept")).to_be_visible()
    assert browser_errors
    assert all("404" in error for error in browser_errors)
    browser_errors.clear()


def test_markup_in_a_prompt_is_text_everywhere(page: Page, site: str, fleet: Fleet) -> None:
    """Every dialog, request or violation that it caused would be an error."""
    ids = [finish(fleet, moving_square(), prompt=MARKUP, negative_prompt=MARKUP) for _ in range(2)]
    fleet.client.post("/generate", json={"prompt": MARKUP})
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    for view in (f"jobs/{ids[0]}", f"compare/{','.join(ids)}"):
        page.goto(f"{site}#/{view}")
        expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)
    page.goto(f"{site}#/gallery")
    expect(page.locator(".gallery .prompt").first).to_have_text(MARKUP)
    expect(page.locator(".queue a")).to_have_text(MARKUP)
    assert page.locator("main b, main script").count() == 0


def test_the_draft_survives_a_reload(page: Page, site: str) -> None:
    page.goto(site)
    page.get_by_role("button", name="a yellow ring growing").click()
    page.get_by_label("Steps").fill("7")
    page.get_by_label("Aggressiveness").fill("0.8")
    page.get_by_label("Keep this seed").check()
    page.get_by_label("Seed number").fill("42")
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("a yellow ring"))
    expect(page.get_by_label("Steps")).to_have_value("7")
    expect(page.get_by_label("Aggressiveness")).to_have_value("0.8")
    expect(page.get_by_label("Seed number")).to_have_value("42")


def test_the_expected_savings_follow_the_dial(page: Page, site: str, fleet: Fleet) -> None:
    page.goto(site)
    expect(page.get_by_text("no job of this model has finished here")).to_be_visible()
    history = {"mode": "auto", "tokens": 2304, "transformer_flops": 1e12, "seconds": 9.0}
    for dial, savings in ((0.5, 0.57), (1.0, 0.75)):
        past = json.dumps(history | {"aggressiveness": dial, "savings": savings})
        fleet.redis_client.lpush("ripple:history:timeripple/builtin", past)
    # The server looks at what has finished once a second.
    page.wait_for_timeout(1100)
    page.get_by_label("Aggressiveness").fill("1")
    expect(page.get_by_text("About 75 % of attention work saved; takes about")).to_be_visible()
    page.get_by_label("Aggressiveness").fill("0.75")
    expect(page.get_by_text("About 66 % of attention work saved; takes about")).to_be_visible()


def test_turning_the_dial_takes_nothing_from_a_keys_submissions(page: Page, site: str, fleet: Fleet) -> None:
    _, token = ApiKeys(fleet.redis_client).create("somebody", rate_limit="1/hour")
    page.add_init_script(f"localStorage.setItem('timeripple.key', '{token}')")
    page.goto(site)
    for value in ("0.1", "0.3", "0.9"):
        page.get_by_label("Aggressiveness").fill(value)
        expect(page.locator(".expectation.stale")).to_have_count(0)
    page.get_by_role("button", name="Generate", exact=True).click()
    expect(page.get_by_text("next in line")).to_be_visible()


def test_nothing_moves_by_itself_where_that_is_not_wanted(
    new_context: Callable[..., BrowserContext], site: str, jobs: dict[str, str]
) -> None:
    page = new_context(reduced_motion="reduce").new_page()
    page.goto(f"{site}#/jobs/{jobs['done']}")
    expect(page.locator("video")).to_have_js_property("readyState", 4)
    assert page.evaluate("document.querySelector('video').paused")
    page.goto(f"{site}#/compare/{jobs['dense']},{jobs['done']}")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_it_can_be_used_by_the_keyboard_alone(page: Page, site: str, fleet: Fleet) -> None:
    page.goto(site)
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("typed by hand")
    dial = page.get_by_label("Aggressiveness")
    for _ in range(40):
        if dial.evaluate("(element) => element === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(dial).to_have_value("0.55")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("heading", name="typed by hand")).to_be_focused()
    (job,) = fleet.client.get("/jobs").json()["jobs"]
    assert (job["request"]["prompt"], job["request"]["reuse"]["aggressiveness"]) == ("typed by hand", 0.55)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.get_by_role("button", name="Cancel").evaluate("(element) => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_text("It was cancelled.")).to_be_visible()


def test_the_main_button_is_readable_under_the_pointer(page: Page, site: str) -> None:
    page.goto(site)
    button = page.get_by_role("button", name="Generate", exact=True)
    button.hover()
    page.wait_for_timeout(300)
    found = Axe().run(page, options={"runOnly": ["color-contrast"]}).response["violations"]
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    new_context: Callable[..., BrowserContext],
    site: str,
    jobs: dict[str, str],
    scheme: str,
    screenshot: Callable[..., Any],
) -> None:
    page = new_context(color_scheme=scheme).new_page()
    for view, name in NAMES.items():
        page.goto(f"{site}#/{view.format(**jobs)}")
        expect(page.locator("main h1, main .note").first).to_be_visible()
        if "compare" in view:
            expect(page.get_by_role("cell", name=re.compile("dB"))).to_be_visible(timeout=30_000)
        found = Axe().run(page).response["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], view
        screenshot(f"{scheme}-{name}", of=page)


def test_nothing_is_wider_than_a_phone(
    new_context: Callable[..., BrowserContext],
    site: str,
    fleet: Fleet,
    jobs: dict[str, str],
    screenshot: Callable[..., Any],
) -> None:
    page = new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).new_page()
    submit(fleet, prompt="w" * 500)
    for view, name in NAMES.items():
        page.goto(f"{site}#/{view.format(**jobs)}")
        expect(page.locator("main h1, main .note").first).to_be_visible()
        if name == "gallery":
            expect(page.locator(".queue li")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        screenshot(f"phone-{name}", of=page, full_page=True)


def test_the_system_page_tells_of_the_day_and_that_no_worker_is_there(
    page: Page, site: str, jobs: dict[str, str], screenshot: Callable[..., Any]
) -> None:
    assert jobs
    page.goto(f"{site}#/system")
    # One dense and one that saved 62 %.
    expect(page.get_by_text("31 % saved")).to_be_visible()
    expect(page.get_by_text("2 made, 1 failed, 0 cancelled.")).to_be_visible()
    expect(page.get_by_text("1 waiting")).to_be_visible()
    expect(page.get_by_text("No worker is alive")).to_be_visible()
    expect(page.get_by_role("cell", name="timeripple/builtin")).to_be_visible()
    screenshot("system")
    page.get_by_role("link", name="API documentation").click()
    expect(page).to_have_title(re.compile("TimeRipple"))


def test_while_the_server_is_away_the_page_says_so_and_then_goes_on(
    page: Page, site: str, fleet: Fleet, browser_errors: list[str]
) -> None:
    job_id = submit(fleet, prompt="patience")
    page.goto(f"{site}#/jobs/{job_id}")
    expect(page.get_by_text("next in line")).to_be_visible()
    assert fleet.api is not None
    fleet.api.terminate()
    fleet.api.wait(timeout=60)
    banner = page.get_by_text("The server cannot be reached. Queued and finished videos are kept")
    expect(banner).to_be_visible(timeout=30_000)
    fleet.start_api()
    expect(banner).not_to_be_visible(timeout=30_000)
    fleet.client.delete(f"/jobs/{job_id}")
    expect(page.get_by_text("It was cancelled.")).to_be_visible(timeout=30_000)
    assert all("ERR_" in error for error in browser_errors)
    browser_errors.clear()


def test_a_submission_whose_answer_got_lost_is_not_made_twice(
    page: Page, site: str, fleet: Fleet, browser_errors: list[str]
) -> None:
    page.goto(site)
    page.get_by_label("Prompt", exact=True).fill("once")

    def lose_the_answer(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/generate", lose_the_answer, times=1)
    button = page.get_by_role("button", name="Generate", exact=True)
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    expect(page.get_by_role("alert")).to_have_count(0)
    button.click()
    expect(page.get_by_text("next in line")).to_be_visible()
    assert [job["request"]["prompt"] for job in fleet.client.get("/jobs").json()["jobs"]] == ["once"]
    browser_errors.clear()


def test_a_key_is_asked_for_once_and_kept(page: Page, site: str, fleet: Fleet, browser_errors: list[str]) -> None:
    job_id = finish(fleet, moving_square())
    key, token = ApiKeys(fleet.redis_client).create("somebody")
    fleet.redis_client.hset(f"ripple:job:{job_id}", "owner", key.id)
    fleet.redis_client.zadd(f"ripple:owner:{key.id}:jobs", {job_id: 0})
    page.goto(f"{site}#/gallery")
    expect(page.get_by_role("alert").first).to_contain_text("asks for an API key")
    page.get_by_label("API key").fill("tr_wrong")
    page.get_by_role("button", name="Keep in this browser").click()
    expect(page.get_by_text("does not know the key")).to_be_visible()
    assert browser_errors
    assert all("401" in error for error in browser_errors)
    browser_errors.clear()
    page.get_by_label("API key").fill(token)
    page.get_by_role("button", name="Keep in this browser").click()
    expect(page.locator("img.thumbnail")).to_have_js_property("naturalWidth", 96)
    browser_errors.clear()
    page.reload()
    page.locator(".gallery a").click()
    expect(page.locator("video")).to_be_visible()
    assert page.evaluate(PLAYED) == [17 / FPS, 96, 64]
    page.get_by_role("button", name="API key ✓").click()
    page.get_by_label("API key").fill("tr_abc…")
    page.get_by_role("button", name="Keep in this browser").click()
    assert page.get_by_label("API key").evaluate("(input) => input.validity.patternMismatch")
    waiting = page.context.new_page()
    waiting.goto(site)
    waiting.get_by_role("button", name="Generate", exact=True).click()
    expect(waiting.get_by_text("next in line")).to_be_visible()
    waiting.get_by_role("button", name="Cancel").click()
    expect(waiting.get_by_text("It was cancelled.")).to_be_visible()
