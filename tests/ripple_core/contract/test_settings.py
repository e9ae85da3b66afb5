"""Settings as the environment gives them."""

import pytest

from ripple_core.contract.settings import SharedSettings


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files hand over what is not in `.env`."""
    for name in ("REDIS_URL", "RIPPLE_STORE_URL", "RIPPLE_METRICS_PORT", "RIPPLE_MODEL"):
        monkeypatch.setenv(name, "")
    settings = SharedSettings()
    assert (settings.redis_url, settings.store_url, settings.metrics_port, settings.model) == (
        None,
        None,
        None,
        "builtin",
    )
