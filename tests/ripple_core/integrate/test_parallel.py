"""Ulysses context parallelism on two gloo ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = 2


def run_ranks(folder: Path, family: str, kind: str) -> list[subprocess.CompletedProcess[str]]:
    script = Path(__file__).with_name("ulysses_rank.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(RANKS), str(folder / "rendezvous"), family, kind],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *output)
        for process, output in zip(processes, outputs, strict=True)
    ]


@pytest.mark.parametrize("family", ["wan", "ltx"])
def test_two_ranks_give_the_video_and_the_savings_of_one(tmp_path: Path, family: str) -> None:
    """Each rank counts its half of the heads."""
    for rank in run_ranks(tmp_path, family, "ulysses"):
        assert rank.returncode == 0, rank.stderr
        distance, savings, heads = (float(word) for word in rank.stdout.split()[-3:])
        assert distance < 1e-4
        assert savings > 0.1
        assert heads == 2


def test_ring_attention_is_refused(tmp_path: Path) -> None:
    for rank in run_ranks(tmp_path, "wan", "ring"):
        assert rank.returncode != 0
        assert "does not work with ring attention; use ContextParallelConfig(ulysses_degree" in rank.stderr
