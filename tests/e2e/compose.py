"""Compose files as compose reads them: the tag !reset, one file over another, variables."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
CPU_FILE = ROOT / "docker/compose.cpu.yml"

_VARIABLE = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-?+])(?P<word>[^{}]*))?\})?"
)

_RESET = object()


class _Loader(yaml.SafeLoader):
    """Knows what compose adds to YAML."""


_Loader.add_constructor("!reset", lambda *_: _RESET)


@dataclass(frozen=True)
class Variable:
    """A use of a variable."""

    name: str
    operator: str = ""
    word: str = ""

    def value(self, values: Mapping[str, str]) -> str:
        """What compose puts in its place; with a colon in the operator an empty value counts as none."""
        found = values.get(self.name)
        is_set = bool(found) if ":" in self.operator else found is not None
        if self.operator.endswith("+"):
            return self.word if is_set else ""
        if is_set or not self.operator:
            return found or ""
        if self.operator.endswith("?"):
            raise ValueError(f"{self.name}: {self.word}")
        return self.word


def load(*paths: Path, values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The files, each over those before it; with values also interpolated."""
    merged: Any = {}
    for path in paths:
        merged = _over(merged, yaml.load(path.read_text(), _Loader))  # noqa: S506 - a safe loader
    return dict(merged if values is None else interpolate(merged, values))


def interpolate(tree: Any, values: Mapping[str, str]) -> Any:
    """All texts with their variables replaced.

    Raises:
        ValueError: when one is asked for and missing, or a dollar sign is neither a variable's nor doubled.
    """
    if isinstance(tree, dict):
        return {key: interpolate(value, values) for key, value in tree.items()}
    if isinstance(tree, list):
        return [interpolate(value, values) for value in tree]
    if isinstance(tree, str):
        return _VARIABLE.sub(lambda use: _replacement(use, values), tree)
    return tree


def variables(tree: Any) -> Iterator[Variable]:
    """Every use in all texts."""
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from variables(value)
    elif isinstance(tree, str):
        for use in _VARIABLE.finditer(tree):
            if use["plain"] or use["braced"]:
                yield _variable(use)


def _over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        merged = below | {key: _over(below.get(key), value) for key, value in above.items()}
        return {key: value for key, value in merged.items() if value is not _RESET}
    assert not (isinstance(below, list) and isinstance(above, list)), "how compose joins lists depends on the key"
    return above


def _variable(use: re.Match[str]) -> Variable:
    return Variable(use["plain"] or use["braced"], use["operator"] or "", use["word"] or "")


def _replacement(use: re.Match[str], values: Mapping[str, str]) -> str:
    if use["dollar"]:
        return "$"
    if use["plain"] or use["braced"]:
        return _variable(use).value(values)
    raise ValueError(f"a lone dollar sign: {use.string!r}")
