"""The commands: help, and errors of one line that say what to do."""

from typing import Any

import pytest

COMMANDS = ("up", "serve", "worker", "generate", "models", "demo", "bench", "keys", "gc")


def test_help_lists_the_commands_and_each_has_help(ripple: Any) -> None:
    overview = ripple("--help")
    assert overview.returncode == 0
    for command in COMMANDS:
        assert command in overview.stdout
        assert ripple(command, "--help").returncode == 0


def test_models_are_listed(ripple: Any) -> None:
    done = ripple("models")
    assert done.returncode == 0
    assert "timeripple/builtin" in done.stdout
    assert "Wan2.1-T2V-1.3B" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("generate", "x", "--local", "-a", "2"), 2, "aggressiveness"),
        (("generate", " ", "--local"), 2, "prompt"),
        (("generate", "x", "--local", "--width", "63"), 2, "nearest: 48 or 64"),
        (("generate", "x", "--local", "--num-frames", "16"), 2, "nearest: 15 or 17"),
        (("generate", "x", "--local", "--model", "gpt"), 1, "neither a folder"),
        (("generate", "x", "-o", "out.gif"), 1, "must end in .mp4"),
        (("generate", "x", "-o", "no/such/folder/out.mp4"), 1, "does not exist"),
        (("generate", "x", "--server", "http://127.0.0.1:9"), 1, "Start one with `ripple up`"),
        (("up", "--model", "gpt"), 1, "neither a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_errors_are_one_line_with_what_to_do(ripple: Any, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = ripple(*arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
