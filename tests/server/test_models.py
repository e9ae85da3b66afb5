"""Several models behind one API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from samples import worker_info

from ripple_core.contract.models import BUILTIN_MODEL_ID
from ripple_core.contract.queue import JobQueue

MODELS = """
[[models]]
source = "builtin"
id = "toy"
max_work = 10_000_000
reuse = {aggressiveness = 0.3, mode = "ripple"}

[[models]]
source = "builtin"

[[models]]
source = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
offload = "group"
"""


@pytest.fixture(scope="module")
def module_api(module_redis: Any, start_api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("several")
    (folder / "models.toml").write_text(MODELS)
    with start_api(module_redis.url, folder, {"RIPPLE_MODELS_FILE": str(folder / "models.toml")}) as api:
        yield api


@pytest.fixture
def several(module_api: Any) -> Any:
    module_api.store.redis.flushall()
    return module_api


def test_all_are_listed_in_the_files_order_with_their_own_defaults(several: Any) -> None:
    toy, builtin, wan = several.client.get("/models").json()["models"]
    assert [toy["id"], builtin["id"], wan["id"]] == ["toy", BUILTIN_MODEL_ID, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
    assert toy["max_work"] == 10_000_000
    assert toy["defaults"]["reuse"] == {"aggressiveness": 0.3, "mode": "ripple"}
    assert builtin["defaults"]["reuse"] == {"aggressiveness": 0.5, "mode": "auto"}
    assert wan["defaults"]["width"] == 832
    assert [model["id"] for model in several.client.get("/v1/models").json()["data"]] == [
        toy["id"],
        builtin["id"],
        wan["id"],
    ]


def test_a_model_says_which_workers_have_it_loaded(several: Any) -> None:
    several.store.beat(worker_info("w1", "busy", loaded=("toy", BUILTIN_MODEL_ID)), timedelta(seconds=30))
    several.store.beat(worker_info("w2", "draining", loaded=("toy",)), timedelta(seconds=30))
    models = several.client.get("/models").json()["models"]
    shown = {
        model["id"]: {(one["worker"], one["device"], one["state"]) for one in model["loaded_on"]} for model in models
    }
    assert shown == {
        "toy": {("w1", "cpu", "busy"), ("w2", "cpu", "draining")},
        BUILTIN_MODEL_ID: {("w1", "cpu", "busy")},
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": set(),
    }


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ({}, "toy"),
        ({"model": "toy"}, "toy"),
        ({"model": "builtin"}, "toy"),
        ({"model": BUILTIN_MODEL_ID}, BUILTIN_MODEL_ID),
        ({"model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
    ],
)
def test_a_job_waits_for_its_own_model_though_no_worker_lives(several: Any, asked: dict[str, str], model: str) -> None:
    job_id = several.submit(num_inference_steps=1, **asked)
    assert several.client.get(f"/jobs/{job_id}").json()["request"]["model"] == model
    assert JobQueue(several.store.redis).num_messages_by_queue() == {f"ripple-normal:{model}": 1}


def test_each_model_has_its_own_defaults_limits_and_estimate(several: Any) -> None:
    tokens = {}
    for model in ("toy", BUILTIN_MODEL_ID, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"):
        body = {"prompt": "x", "model": model, "num_inference_steps": 1}
        answer = several.client.post("/generate/estimate", json=body)
        assert answer.status_code == 200, answer.text
        tokens[model] = answer.json()["estimate"]["tokens"]
    # 9x16x16 and 21x30x52.
    assert tokens == {"toy": 2304, BUILTIN_MODEL_ID: 2304, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 32760}
    refused = several.client.post("/generate", json={"prompt": "x", "model": "toy", "num_inference_steps": 100})
    assert (refused.status_code, refused.json()["errors"][0]["nearest"]) == (422, [35])
    unknown = several.client.post("/generate", json={"prompt": "x", "model": "other"})
    assert unknown.json()["code"] == "unknown_model"
    assert f"toy, {BUILTIN_MODEL_ID}, Wan-AI" in unknown.json()["detail"]


def test_a_request_without_reuse_is_another_one_than_with_it_said(several: Any) -> None:
    def submit(**fields: Any) -> Any:
        body = {"prompt": "x", "seed": 1, "model": "toy"} | fields
        return several.client.post("/generate", json=body, headers={"Idempotency-Key": "k"})

    first = submit().json()
    assert first["request"]["reuse"] == {"aggressiveness": 0.3, "mode": "ripple"}
    assert submit().json()["id"] == first["id"]
    assert submit(reuse={"aggressiveness": 0.5, "mode": "auto"}).status_code == 409


def test_the_server_does_not_start_on_a_wrong_models_file(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[[models]]\nsource = "builtin"\ncompiled = true\n')
    environment = os.environ | {"REDIS_URL": "redis://127.0.0.1:1", "RIPPLE_MODELS_FILE": str(path)}
    done = subprocess.run(
        [sys.executable, "-m", "server"], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {path}, model 1 (builtin), compiled: Extra inputs are not permitted.\n"
