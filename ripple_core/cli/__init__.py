"""The `ripple` command. Its parts load inside the commands, so that `--help` is quick."""

from ripple_core.cli.main import app

__all__ = ["app"]
