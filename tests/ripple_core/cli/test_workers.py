"""What the processes that one command starts are told."""

import pytest

from ripple_core.cli.stack import metrics_port


def test_each_process_gets_a_port_of_its_own_for_its_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPPLE_METRICS_PORT", "9100")
    assert [metrics_port(index)["RIPPLE_METRICS_PORT"] for index in range(3)] == ["9100", "9101", "9102"]
    monkeypatch.delenv("RIPPLE_METRICS_PORT")
    assert metrics_port(1) == {}
