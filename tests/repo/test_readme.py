"""What the README shows works."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ripple_core.bench.attention_speed import SpeedReport, SpeedRow
from ripple_core.bench.batch import BatchReport, BatchRow
from ripple_core.bench.prompts import reporting_prompts
from ripple_core.bench.queue_load import QueuedLevel
from ripple_core.bench.queue_report import QueueReport
from ripple_core.bench.queue_sim import FleetResult
from ripple_core.bench.report import FidelityReport, VariantReport
from ripple_core.bench.serve import ServeReport
from ripple_core.contract.models import find_model
from ripple_core.contract.request import GenerateRequest
from ripple_core.contract.validate import resolve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs_and_saves() -> None:
    """The one after it is run by the test of notebooks."""
    library = README.partition("## Library")[2]
    example, _ = re.findall(r"```python\n(.*?)```", library, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=True)
    saved = re.search(r"ripple at aggressiveness 0\.5: ([\d.]+)% of attention FLOPs saved", done.stdout)
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
        assert (ROOT / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize(
    ("name", "page"), [("fidelity.json", "README.md"), ("fidelity_channel.json", "ripple_core/METHOD.md")]
)
def test_the_fidelity_figures_are_those_of_the_committed_report(name: str, page: str) -> None:
    """Every row and every verdict, and the report is one of the reporting prompts."""
    text = (ROOT / page).read_text(encoding="utf-8")
    record = ROOT / "ripple_core" / "bench" / "figures" / name
    report = FidelityReport.model_validate_json(record.read_text(encoding="utf-8"))
    assert [clip.prompt for clip in report.dense] == reporting_prompts()
    assert [_row(variant) for variant in report.variants if _row(variant) not in text] == []
    words = " ".join(text.split())
    assert [verdict for verdict in report.verdicts if verdict not in words] == []


def test_the_speed_figures_are_those_of_the_committed_report() -> None:
    record = ROOT / "ripple_core" / "bench" / "figures" / "attention_cpu.json"
    rows = SpeedReport.model_validate_json(record.read_text(encoding="utf-8")).rows
    method = (ROOT / "ripple_core" / "METHOD.md").read_text(encoding="utf-8")
    assert [_speed_row(row) for row in rows if _speed_row(row) not in method] == []


def test_the_serving_figures_are_those_of_the_committed_report() -> None:
    record = ROOT / "ripple_core" / "bench" / "figures" / "serve.json"
    report = ServeReport.model_validate_json(record.read_text(encoding="utf-8"))
    fixed, unlimited, streams = report.fixed_rate, report.unlimited, report.streams
    assert set(fixed.statuses) == set(unlimited.statuses) == {202}
    for words, row in [
        ("idle", report.start.post_to_start),
        (f"at {fixed.accepted_per_second:.0f} accepted a second", fixed.answer),
        (f"{unlimited.accepted_per_second:.0f} a second", unlimited.answer),
        (f"{streams.complete} of {streams.num_streams} event streams open at once", streams.delay),
    ]:
        assert f"{words} | {row.p50_ms:.0f} ms | {row.p99_ms:.0f} ms |" in README


def test_the_queue_figures_are_those_of_the_committed_reports() -> None:
    simulation, load = (_queue_report(part) for part in ("simulation", "load"))
    assert simulation.simulation is not None
    assert load.load is not None
    busy = [fleet for fleet in simulation.simulation.fleets if fleet.offered_utilisation == 0.9]
    shown = [fleet for fleet in busy if fleet.policy in ("fifo", "warm_first", "head_start_grace")]
    assert len(shown) == 9
    rows = [_fleet_row(fleet) for fleet in shown] + [_level_row(level) for level in load.load.levels]
    assert [row for row in rows if row not in README] == []


def test_the_batch_figures_are_those_of_the_committed_report() -> None:
    record = ROOT / "ripple_core" / "bench" / "figures" / "batch.json"
    rows = BatchReport.model_validate_json(record.read_text(encoding="utf-8")).rows
    assert [row for row in map(_batch_row, rows) if row not in README] == []


def test_the_reliability_figures_are_those_of_the_committed_records() -> None:
    page = (ROOT / "worker" / "RELIABILITY.md").read_text(encoding="utf-8")
    stress = json.loads((ROOT / "worker" / "stress.json").read_text(encoding="utf-8"))
    assert [row for row in map(_stress_row, stress, stress.values()) if row not in page] == []
    soak = json.loads((ROOT / "worker" / "soak.json").read_text(encoding="utf-8"))
    assert soak["jobs"] == sum(soak["ends"].values()) == 500
    for process in ("worker", "engine"):
        assert f"| {process} | {soak['mb_at_end'][process]} MB | {soak['mb_per_job'][process]:+.3f} MB |" in page


def _queue_report(part: str) -> QueueReport:
    record = ROOT / "ripple_core" / "bench" / "figures" / f"queue_{part}.json"
    return QueueReport.model_validate_json(record.read_text(encoding="utf-8"))


def _fleet_row(fleet: FleetResult) -> str:
    waits = f"{fleet.waits.p50_s:,.0f} s | {fleet.waits.p95_s:,.0f} s | {fleet.waits.p99_s:,.0f} s"
    return f"| {fleet.num_gpus:,} | {fleet.policy} | {fleet.cold_starts:,} | {waits} |"


def _level_row(level: QueuedLevel) -> str:
    rates = " | ".join(f"{rate.median:.0f} ({rate.fastest:.0f})" for rate in (level.jobs, level.plain_rq))
    size = "" if level.bytes_per_queued_job is None else f"{level.bytes_per_queued_job / 1000:.1f} kB"
    return f"| {level.queued:,} | {rates} | {level.redis_cpu_ms:.1f} ms | {size} |"


def _batch_row(row: BatchRow) -> str:
    rates = f"{row.videos_per_second:.2f} ({row.slowest_videos_per_second:.2f} to {row.fastest_videos_per_second:.2f})"
    psnr = "" if row.worst_psnr_db is None else f"{row.worst_psnr_db:.0f} dB"
    size = f"{row.width}x{row.height}x{row.num_frames}"
    return f"| {size} | {row.batch_size} | {rates} | {row.speedup:.2f} | {psnr} |"


def _stress_row(name: str, counts: dict[str, Any]) -> str:
    well = next(counts[key] for key in ("one_result", "cancelled", "reported") if key in counts)
    seconds = counts.get("slowest_next_start_s")
    return f"| {name} | {counts['times']} | {well} | {'' if seconds is None else f'{seconds:.1f} s'} |"


def _speed_row(row: SpeedRow) -> str:
    assert row.ours_peak_bytes
    assert row.dense_peak_bytes
    memory = row.ours_peak_bytes / row.dense_peak_bytes
    times = f"{row.dense_ms:,.0f} | {row.ours_ms:,.0f} | {row.ratio:.2f}"
    inputs = f"{row.source} | {row.tokens:,} | {row.head_dim}"
    return f"| {inputs} | {row.savings:.1%} | {row.relative_error:.3f} | {times} | {memory:.2f} |"


def _row(variant: VariantReport) -> str:
    saved = (variant.score_savings, variant.attention_savings, variant.total_savings)
    shares = ("" if share is None else f"{share:.1%}" for share in saved)
    assert variant.psnr_db is not None
    spread = (variant.psnr_db.min, variant.psnr_db.median, variant.psnr_db.max)
    psnr = " / ".join(f"{value:.1f}" for value in spread)
    return f"| {variant.name} | {' | '.join(shares)} | {psnr} | {variant.ssim.median:.3f} |"
