"""Transformers on the kernels: as on a CUDA device, where they are taken by themselves."""

import pytest
import torch
from diffusers import WanTransformer3DModel

from ripple_core import TimeRippleConfig, apply_timeripple
from ripple_core.attention import backend, config
from ripple_core.attention.kernels import ripple
from ripple_core.generate.job_metrics import attention_metrics

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="takes the CPU for a GPU, under the interpreter")


@pytest.fixture
def kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every device were a GPU and every head worth it, with a budget that even noise can be saved at."""
    monkeypatch.setattr(backend, "kernels_unsupported", lambda _: ())
    monkeypatch.setattr(config, "_BUDGET_AT_FULL", 20.0)
    monkeypatch.setattr(ripple, "WORTH_IT", 2.0)
    monkeypatch.setattr(ripple, "_SAMPLE_WORTH_IT", 2.0)


def forward(compiled: bool) -> tuple[torch.Tensor, object]:
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_layers=2, num_attention_heads=2, attention_head_dim=16, ffn_dim=32, text_dim=16, freq_dim=16
    ).eval()
    inputs = (torch.randn(1, 16, 3, 14, 10), torch.tensor([500.0]), torch.randn(1, 8, 16))
    handle = apply_timeripple(transformer, TimeRippleConfig(1.0, mode="ripple"))
    handle.set_step(19, 20)
    if compiled:
        transformer = torch.compile(transformer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        out = transformer(*inputs, return_dict=False)[0]
    report = handle.report()
    handle.remove()
    return out, report


@pytest.mark.usefixtures("kernels_everywhere")
def test_metrics_name_the_kernels() -> None:
    out, report = forward(compiled=False)
    assert out.isfinite().all()
    metrics = attention_metrics(report, calibrated=False)  # type: ignore[arg-type]
    assert metrics.backend == "triton"
    assert metrics.savings > 0
    assert not metrics.dense_heads


@pytest.mark.usefixtures("kernels_everywhere")
def test_kernels_in_one_compiled_graph_give_the_same() -> None:
    torch.testing.assert_close(forward(compiled=True)[0], forward(compiled=False)[0], rtol=1e-4, atol=1e-5)


def test_a_cpu_is_told_as_torch_and_dense_heads_alone_as_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention_metrics(forward(compiled=False)[1], calibrated=False).backend is None  # type: ignore[arg-type]
    monkeypatch.setattr(config, "_BUDGET_AT_FULL", 20.0)
    assert attention_metrics(forward(compiled=False)[1], calibrated=False).backend == "torch"  # type: ignore[arg-type]
