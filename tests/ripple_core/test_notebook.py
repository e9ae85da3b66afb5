"""What a notebook shows of results, in a real one and piece by piece."""

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from samples import METRICS

from ripple_core import notebook
from ripple_core.attention import Executed, SavingsCounter
from ripple_core.contract.errors import InvalidRequest, UnknownModel
from ripple_core.contract.metrics import Fallback, QualityMetrics, StepCount
from ripple_core.generate import text_to_video

README = (Path(__file__).parents[2] / "README.md").read_text()
# The example, and the same in small.
EXAMPLE = re.findall(
    r"```python\n(from ripple_core import text_to_video\n.*?)(text_to_video\(.*?)```", README, re.DOTALL
)
((SETTING_UP, CALL),) = EXAMPLE
SMALL = CALL.replace("a red circle moving left on a dark background", "a <b>red</b> circle").replace(
    "seed=1, aggressiveness=0.5",
    'width=48, height=32, num_frames=5, fps=4, num_inference_steps=3, seed=3, aggressiveness=1.0, mode="channel"',
)
CELLS = (
    SETTING_UP,
    f"video = {SMALL}\nvideo",
    "video.report",
    "from pathlib import Path\nfrom ripple_core.generate import generate_video\n"
    "generate_video(model, video.request, Path())",
    "print(video.report.savings, video.latency.denoise, video.dense_denoise_estimate_s)",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each cell put out, at most one thing."""
    folder = tmp_path_factory.mktemp("notebook")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        client = NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute()
    nbformat.validate(book)
    return [next(iter(cell.outputs), None) for cell in book.cells]


def html_of(output: Any) -> str:
    return output.data["text/html"]


def test_a_cell_plays_the_video(outputs: list[Any], tmp_path: Path) -> None:
    html = html_of(outputs[1])
    (player,) = re.findall(r"<video [^>]*>", html)
    assert {"controls", "loop", "muted", "playsinline"} < set(player.split())
    (encoded,) = re.findall(r'src="data:video/mp4;base64,([^"]+)"', player)
    path = tmp_path / "video.mp4"
    path.write_bytes(base64.b64decode(encoded, validate=True))
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (5, pytest.approx(5 / 4))
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (48, 32)
    reader.close()


def test_a_cell_tells_savings_and_time_in_words(outputs: list[Any]) -> None:
    savings, denoise_s, estimate = outputs[4].text.split()
    # The first video after loading has no step that tells how long others would take.
    assert (float(savings) > 0, estimate) == (True, "None")
    took = f"{notebook.outcome(float(savings), float(denoise_s))}</p>"
    assert took in html_of(outputs[1])
    assert "instead of" not in took
    for html in map(html_of, outputs[1:4]):
        assert f"{100 * float(savings):.0f}\N{NO-BREAK SPACE}% of attention work saved" in html
        assert f"{100 * float(savings):.1f}\N{NO-BREAK SPACE}%</td>" in html


def test_savings_of_the_published_form_are_no_promise_of_time(outputs: list[Any]) -> None:
    assert all(notebook.CHANNEL_NOTE in html_of(output) for output in outputs[1:4])
    assert notebook.CHANNEL_NOTE not in METRICS._repr_html_()


def test_a_cell_shows_no_markup_of_the_prompt(outputs: list[Any]) -> None:
    assert "a &lt;b&gt;red&lt;/b&gt; circle" in html_of(outputs[1])
    assert "<b>" not in html_of(outputs[1])


def test_a_terminal_sees_what_it_saw(outputs: list[Any]) -> None:
    assert outputs[1].data["text/plain"].startswith("GeneratedFrames(frames=array(")
    assert outputs[2].data["text/plain"].startswith("SavingsReport(mode='channel'")
    assert outputs[3].data["text/plain"].startswith("JobMetrics(latency_s=")


def charts(html: str) -> list[ET.Element]:
    # Ours, so it is trusted.
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html)]  # noqa: S314


def bars_of(chart: ET.Element) -> list[tuple[str, float, float]]:
    """What pointing at each bar says, its upper end and its height."""
    found = []
    for group in chart.iter("g"):
        title, bar = group.find("title"), group.find("rect[@class='saved']")
        assert title is not None
        assert bar is not None
        found.append((title.text or "", float(bar.attrib["y"]), float(bar.attrib["height"])))
    return found


def test_a_report_has_a_bar_for_each_step_and_layer() -> None:
    counter, shape = SavingsCounter("some", 0.5), (1, 10, 1, 4)
    for layer in range(3):
        counter.record(0, layer, shape)
        counter.record(1, layer, shape, Executed(torch.tensor([[0.5]]), torch.tensor([[0.5]])))
    steps, layers = charts(counter.report()._repr_html_())
    assert bars_of(steps) == [
        ("denoising step 1: 0.0\N{NO-BREAK SPACE}% saved, dense", 48.0, 0.0),
        ("denoising step 2: 50.0\N{NO-BREAK SPACE}% saved", 24.0, 24.0),
    ]
    assert bars_of(layers) == [(f"layer {n + 1}: 25.0\N{NO-BREAK SPACE}% saved", 36.0, 12.0) for n in range(3)]


def test_what_costs_more_than_dense_hangs_down() -> None:
    (chart,) = charts(notebook.bars("layer", {0: 0.5, 1: -1.0}))
    assert [(top, height) for _, top, height in bars_of(chart)] == [(12.0, 12.0), (24.0, 24.0)]
    assert notebook.outcome(-0.125).startswith("12\N{NO-BREAK SPACE}% more attention work")


def test_an_unknown_step_is_called_so_and_nothing_has_no_bars() -> None:
    assert "denoising step unknown: 0.0" in notebook.bars("denoising step", {-1: 0.0}, [-1])
    assert notebook.bars("layer", {}) == ""


def test_a_dense_time_is_told_where_it_is_known() -> None:
    known = METRICS.model_copy(update={"dense_denoise_estimate_s": 31.2})
    words = "25 % of attention work saved; denoising took 1.5 s"
    assert f">{words} instead of about 31 s.</p>" in known._repr_html_().replace("\N{NO-BREAK SPACE}", " ")
    assert f">{words}.</p>" in METRICS._repr_html_().replace("\N{NO-BREAK SPACE}", " ")


def test_metrics_escape_every_text_and_show_what_was_measured() -> None:
    attention = METRICS.attention.model_copy(
        update={
            "fallbacks": [Fallback(reason="<script>", calls=2)],
            "by_step": [StepCount(step=0, dense=True, dense_flops=1, executed_flops=1, savings=0.0)],
        }
    )
    quality = QualityMetrics(identical=False, psnr_db=35.31, worst_frame_psnr_db=30.0, ssim=0.98, dense_denoise_s=2.0)
    device = METRICS.device.model_copy(update={"name": "a & b"})
    changes = {"attention": attention, "quality": quality, "device": device, "batch_size": 3}
    html = METRICS.model_copy(update=changes)._repr_html_()
    assert "&lt;script&gt;: 2" in html
    assert "<script>" not in html
    assert "a &amp; b, float32" in html
    assert "PSNR 35.3 dB (30.0 in the worst frame), SSIM 0.980" in html
    assert "3 videos together" in html
    assert "1 of 1" in html


def test_a_large_video_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MAX_VIDEO_CHARACTERS", 4_000_000)
    assert "<video" in notebook.video(bytes(3_000_000), 16, 16, "Write <it>.")
    said = notebook.video(bytes(3_000_001), 16, 16, "Write <it>.")
    assert said.endswith("3\N{NO-BREAK SPACE}MB, too much to keep in a notebook. Write &lt;it&gt;.</p>")
    assert "<video" not in said


def test_no_colour_is_fixed(outputs: list[Any]) -> None:
    """Dark themes have light text."""
    for html in map(html_of, outputs[1:4]):
        named = re.findall(r'(?:color|background|fill|stroke)(?:: |=")([^;"]+)', html)
        assert set(named) == {"inherit", "none", "currentColor"}


def test_a_wrong_request_is_told_before_a_model_is_loaded() -> None:
    with pytest.raises(InvalidRequest, match="nearest"):
        text_to_video("a red circle", width=72)
    with pytest.raises(UnknownModel):
        text_to_video("a red circle", "nowhere")
    with pytest.raises(ValueError, match="aggressiveness"):
        text_to_video("a red circle", aggressiveness=2.0)
