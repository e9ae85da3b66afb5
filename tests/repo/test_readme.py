"""What the README shows works."""

import json
import re
import subprocess
import sys
from pathlib import Path

from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs_and_saves() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=True)
    saved = re.search(r"channel at aggressiveness 0\.5: ([\d.]+)% of attention FLOPs saved", done.stdout)
    assert saved is not None
    assert float(saved[1]) > 0


def test_the_request_example_is_accepted() -> None:
    (body,) = re.findall(r"-d '(\{.*?\n\})'", README, re.DOTALL)
    resolve(GenerateRequest.model_validate(json.loads(body)), find_model("builtin"))


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target} " in README
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
