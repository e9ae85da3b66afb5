"""The port for Prometheus, where it is taken."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fleet import running_fleet
from ports import free_port


@pytest.mark.parametrize("module", ["server", "worker"])
def test_a_process_whose_metrics_port_is_taken_names_the_setting(tmp_path: Path, own_redis: Any, module: str) -> None:
    port = free_port()
    with running_fleet(tmp_path, 0, RIPPLE_METRICS_PORT=str(port)):
        settings = {"REDIS_URL": own_redis.url, "RIPPLE_METRICS_PORT": str(port), "RIPPLE_DATA_DIR": str(tmp_path)}
        settings["RIPPLE_PORT"] = str(free_port())
        done = subprocess.run(
            [sys.executable, "-m", module], env=os.environ | settings, capture_output=True, text=True, check=False
        )
    assert done.returncode in (1, 2)
    assert f"error: RIPPLE_METRICS_PORT: 127.0.0.1:{port} cannot be opened (Address already in use)" in done.stderr
    assert "Traceback" not in done.stderr
