"""The tuning and the reporting prompts are kept apart."""

import ast
import re
from pathlib import Path

import ripple_core
from ripple_core.bench.prompts import reporting_prompts, tuning_prompts
from ripple_core.tiny.clips import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Scene, Thing

PACKAGE = Path(ripple_core.__file__).parent
# The one place where a user asks for the set to report with, and the set's own module.
MAY_REPORT = {"cli/bench.py", "bench/prompts/__init__.py"}


def scene_of(caption: str) -> Scene:
    *_, background = re.findall("|".join(BACKGROUNDS), caption)
    things = []
    for phrase in caption.split(" above "):
        colour, shape, motion = (
            next(word for word in words if word in phrase.removesuffix(f" on a {background} background"))
            for words in (COLOURS, SHAPES, MOTIONS)
        )
        things.append(Thing(colour, shape, motion))
    return Scene(tuple(things), background)


def test_the_sets_are_eight_prompts_each_and_disjoint() -> None:
    tuning, reporting = set(tuning_prompts()), set(reporting_prompts())
    assert len(tuning) == len(reporting) == 8
    assert not tuning & reporting


def test_the_built_in_model_never_trained_on_a_reporting_scene() -> None:
    for caption in reporting_prompts():
        scene = scene_of(caption)
        assert scene.caption() == caption
        assert scene.held_out


def test_no_other_code_reads_the_reporting_set() -> None:
    """Neither by the function's name nor by the file's; whoever tunes may read the tuning set only."""
    readers = set()
    for path in PACKAGE.rglob("*.py"):
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)
        }
        if "reporting_prompts" in names or "reporting.txt" in path.read_text(encoding="utf-8"):
            readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers <= MAY_REPORT


def test_a_tuning_run_never_opens_the_reporting_file() -> None:
    """Watched from outside, in a process of its own, while the tuning prompts are read."""
    import subprocess
    import sys

    script = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "from pathlib import Path\n"
        "from ripple_core.cli.bench import choose_prompts\n"
        "assert len(choose_prompts(None)) == 8\n"
        "assert any(path.endswith('tuning.txt') for path in opened)\n"
        "assert not any(path.endswith('reporting.txt') for path in opened)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
