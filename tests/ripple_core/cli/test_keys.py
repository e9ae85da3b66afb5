"""`ripple keys` as an operator uses it."""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from ripple_core.contract.keys import API_KEYS, digest


@pytest.fixture
def ripple(own_redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of `ripple` in an empty folder, on a Redis of its own."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "ripple"), *arguments]
        environment = os.environ | settings
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
        )

    return run


@pytest.fixture
def keys(ripple: Any) -> Any:
    return partial(ripple, "keys")


def test_a_key_is_made_listed_and_revoked(keys: Any, own_redis: Any) -> None:
    redis = Redis.from_url(own_redis.url)
    made = json.loads(keys("create", "laptop", "--rate-limit", "10/minute", "--json").stdout)
    assert redis.hexists(API_KEYS, digest(made["key"]))
    listed = keys("list").stdout
    assert made["id"] in listed
    assert "10/minute" in listed
    assert made["key"] not in listed
    assert keys("revoke", made["id"]).returncode == 0
    assert "All keys are revoked" in keys("list").stdout
    assert keys("abolish").returncode == 0
    assert "There are no keys" in keys("list").stdout


def test_a_new_key_is_shown_alone_on_its_line_with_how_to_use_it(keys: Any) -> None:
    lines = keys("create", "laptop").stdout.splitlines()
    assert lines[0].startswith("tr_")
    assert len(lines[0]) == 46
    assert "Authorization: Bearer" in " ".join(lines)


def test_a_key_has_a_webhook_secret_of_its_own(keys: Any) -> None:
    first = json.loads(keys("create", "a", "--json").stdout)["id"]
    second = json.loads(keys("create", "b", "--json").stdout)["id"]
    secrets = [keys("webhook-secret", *which).stdout.strip() for which in ((first,), (second,), (), (first,))]
    assert len(set(secrets)) == 3
    assert secrets[0] == secrets[3]
    assert all(secret.startswith("whsec_") for secret in secrets)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("revoke", "key_0"), "ripple keys list"),
        (("webhook-secret", "key_0"), "ripple keys list"),
        (("create", "x", "--rate-limit", "fast"), "60/minute"),
        (("create", "x", "--rate-limit", "0/minute"), "60/minute"),
        (("create", "x", "--max-active-jobs", "0"), "max-active-jobs"),
    ],
    ids=str,
)
def test_errors_say_what_to_do(keys: Any, arguments: tuple[str, ...], says: str) -> None:
    done = keys(*arguments)
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_redis_that_is_away_is_one_line(keys: Any) -> None:
    done = keys("list", REDIS_URL="unix:///nowhere.sock")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "REDIS_URL" in done.stderr


def test_a_name_is_shown_as_it_was_given(keys: Any) -> None:
    keys("create", "[red]phone")
    assert "[red]phone" in keys("list", COLUMNS="120").stdout


def test_keys_outlive_the_embedded_redis(keys: Any) -> None:
    embedded = {"REDIS_URL": "", "RIPPLE_DATA_DIR": "data"}
    made = json.loads(keys("create", "laptop", "--json", **embedded).stdout)
    assert made["id"] in keys("list", COLUMNS="120", **embedded).stdout


@pytest.mark.parametrize(("command", "code"), [("serve", 2), ("up", 1)])
def test_a_server_for_other_machines_says_how_to_make_a_key(ripple: Any, command: str, code: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = ripple(command, "--port", str(port), RIPPLE_EXPOSED_HOST="192.0.2.1")
    assert done.returncode == code
    assert "`ripple keys create NAME`" in done.stderr
    assert "--allow-anonymous" in done.stderr
    assert "Traceback" not in done.stderr
