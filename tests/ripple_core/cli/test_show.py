"""What the terminal shows of a job."""

from typing import get_args

import pytest

from ripple_core.cli.show import progress_bar
from ripple_core.contract.job import Progress, Stage


@pytest.mark.parametrize("stage", get_args(Stage))
def test_every_stage_has_words(stage: Stage) -> None:
    with progress_bar() as on_progress:
        on_progress(Progress(stage=stage, step=1, total_steps=2, fraction=0.5))
