"""The page's files as they are served: all from here, nothing inline, small, with the headers that keep it so."""

import gzip
import http.client
import re
from pathlib import Path
from typing import Any

import pytest

from server.studio import FOLDER

PARTS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".js", ".css", ".svg"))
MOST_BYTES = 300_000


def test_the_page_is_at_the_root_and_everything_it_names_is_served(api: Any) -> None:
    page = api.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="(studio/[^"]+)"', page.text)
    assert len(named) == 3
    for path in named:
        assert api.client.get(f"/{path}").status_code == 200


@pytest.mark.parametrize("part", PARTS, ids=lambda path: path.name)
def test_modules_import_only_what_is_there_and_nothing_from_elsewhere(part: Path) -> None:
    text = part.read_text()
    for name in re.findall(r'from "(\./[\w.]+)"', text):
        assert (FOLDER / name).is_file(), name
    known = ("http://www.w3.org/", "https://developer.mozilla.org/", "https://html.spec.whatwg.org/")
    elsewhere = [url for url in re.findall(r"https?://[\w./-]+", text) if not url.startswith(known)]
    assert elsewhere == [], "names of standards, at most"


def test_all_of_it_is_small() -> None:
    served = [FOLDER / "index.html", *PARTS]
    assert sum(len(gzip.compress(path.read_bytes())) for path in served) < MOST_BYTES


@pytest.mark.parametrize("path", ["/", "/studio/app.js", "/studio/studio.css"])
def test_nothing_inline_and_nothing_foreign_may_run(api: Any, path: str) -> None:
    headers = api.client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"


def test_the_page_itself_has_nothing_inline(api: Any) -> None:
    page = api.client.get("/").text
    assert re.findall(r"<script[^>]*>([^<]+)</script>", page) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)


@pytest.mark.parametrize("path", ["/studio/", "/studio/..%2fapp.py", "/studio/nothing.js"])
def test_no_other_file_can_be_reached(api: Any, path: str) -> None:
    answer = api.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_path_that_leads_out_of_the_folder_leads_nowhere(api: Any) -> None:
    """As it stands: clients of good manners would resolve the dots themselves."""
    address = api.client.base_url
    connection = http.client.HTTPConnection(address.host, address.port, timeout=20)
    connection.request("GET", "/studio/../app.py")
    assert connection.getresponse().status == 404
    connection.close()


def test_an_unchanged_file_is_not_sent_again(api: Any) -> None:
    first = api.client.get("/studio/app.js")
    assert api.client.get("/studio/app.js", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
