"""What a Dockerfile says, instruction by instruction."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One image of a build."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        """What follows a word, each time it is used."""
        return [rest for found, rest in self.instructions if found == word]

    @property
    def user(self) -> str | None:
        users = self.all("USER")
        return users[-1] if users else None

    @property
    def command(self) -> list[str]:
        return list(json.loads(self.all("CMD")[-1]))

    @property
    def environment(self) -> dict[str, str]:
        return dict(part.split("=", 1) for rest in self.all("ENV") for part in shlex.split(rest))

    @property
    def sources(self) -> list[str]:
        """What is copied from the build's context."""
        copies = [shlex.split(rest) for rest in self.all("COPY")]
        return [source for parts in copies if not parts[0].startswith("--from") for source in parts[:-1]]


def read_stages(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, the one that becomes the image last."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append(Stage(rest.split()[0]))
        elif word:
            stages[-1].instructions.append((word, rest))
    return stages
