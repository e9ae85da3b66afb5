"""The manifests, without a cluster: schemas, and whether they agree with each other, the images and the code."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from e2e.compose import FILE, load
from e2e.dockerfile import ROOT, read_stages
from fastapi.testclient import TestClient
from redis import Redis
from scraped import Scrape

from server.app import create_app
from server.routes import ops
from server.settings import ServerSettings
from worker.settings import WorkerSettings

# The oldest that is tried: `preStop.sleep` is on by default since 1.30.
VERSION = "1.31"
FOLDER = ROOT / "docker/kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
FILES = [FOLDER / name for name in KUSTOMIZATION["resources"]]
RESOURCES: list[dict[str, Any]] = [one for path in FILES for one in yaml.safe_load_all(path.read_text())]
SCALER_SCHEMA = json.loads((Path(__file__).parent / "schemas/keda-scaledobject.json").read_text())
COMPOSE = load(FILE, values={"REDIS_PASSWORD": "secret"})
SETTINGS = {f"RIPPLE_{name.upper()}" for kind in (ServerSettings, WorkerSettings) for name in kind.model_fields}


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [resource for resource in RESOURCES if resource["kind"] in kinds]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (resource for resource in of_kind(kind) if resource["metadata"]["name"] == name)
    return found


WORKLOADS: dict[str, dict[str, Any]] = {
    resource["metadata"]["name"]: resource for resource in of_kind("Deployment", "StatefulSet")
}
OURS = ("server", "worker")
every_workload = pytest.mark.parametrize("name", WORKLOADS)


def pod(name: str) -> dict[str, Any]:
    return dict(WORKLOADS[name]["spec"]["template"]["spec"])


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    return dict(only)


def environment(name: str) -> dict[str, str | None]:
    """Variables of a container; None for a secret's."""
    found: dict[str, str | None] = {}
    for source in container(name).get("envFrom", []):
        if "configMapRef" in source:
            found |= named("ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one.get("value") for one in container(name)["env"]}


def secret_keys(name: str) -> Iterator[tuple[str, str]]:
    for one in container(name)["env"]:
        if "valueFrom" in one:
            yield one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"]


def port_of(name: str, port: str) -> int:
    (found,) = (one["containerPort"] for one in container(name)["ports"] if one["name"] == port)
    return int(found)


def test_every_manifest_is_valid_and_says_nothing_unknown() -> None:
    for resource in RESOURCES:
        if resource["kind"] != "ScaledObject":
            kubernetes_validate.validate(resource, VERSION, strict=True)
    misspelt = named("Deployment", "worker") | {"spec": named("Deployment", "worker")["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, VERSION, strict=True)


def test_the_scaler_is_valid_and_says_nothing_unknown() -> None:
    (scaler,) = of_kind("ScaledObject")
    jsonschema.validate(scaler, SCALER_SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(scaler | {"spec": scaler["spec"] | {"maxReplicas": 8}}, SCALER_SCHEMA)


def test_the_kustomization_lists_every_file() -> None:
    assert set(FILES) | {FOLDER / "kustomization.yaml"} == set(FOLDER.iterdir())
    assert named("Namespace", KUSTOMIZATION["namespace"])


def test_images_are_ours_of_this_version_or_the_one_that_compose_runs() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {image["name"]: image["newTag"] for image in KUSTOMIZATION["images"]}
    assert tags == {container(name)["image"]: version for name in OURS}
    assert container("redis")["image"] == COMPOSE["services"]["redis"]["image"]
    assert container("redis")["args"] == COMPOSE["services"]["redis"]["command"][2:]


def test_selectors_find_the_pods_they_mean() -> None:
    labels = {name: workload["spec"]["template"]["metadata"]["labels"] for name, workload in WORKLOADS.items()}
    for name, workload in WORKLOADS.items():
        assert workload["spec"]["selector"]["matchLabels"] == labels[name]
    for resource in of_kind("Service", "PodDisruptionBudget"):
        selector = resource["spec"]["selector"]
        assert selector.get("matchLabels", selector) == labels[resource["metadata"]["name"]]
    redis, ours = (named("NetworkPolicy", name)["spec"] for name in ("redis", "server-and-worker"))
    assert redis["podSelector"]["matchLabels"] == labels["redis"]
    for selector in (redis["ingress"][0]["from"][0]["podSelector"], ours["podSelector"]):
        (who,) = selector["matchExpressions"]
        assert [{who["key"]: value} for value in who["values"]] == [labels[name] for name in OURS]


def test_metrics_are_for_prometheus_and_the_api_is_for_all() -> None:
    metrics, api = named("NetworkPolicy", "server-and-worker")["spec"]["ingress"]
    assert {port_of(name, "metrics") for name in OURS} == {port["port"] for port in metrics["ports"]}
    assert [port_of("server", "http")] == [port["port"] for port in api["ports"]]
    assert "from" not in api
    (source,) = metrics["from"]
    (trigger,) = of_kind("ScaledObject")[0]["spec"]["triggers"]
    # The one that the scaler asks.
    namespace = source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert trigger["metadata"]["serverAddress"] == f"http://prometheus.{namespace}:9090"


def test_ports_agree() -> None:
    for service in of_kind("Service"):
        name = service["metadata"]["name"]
        (port,) = service["spec"]["ports"]
        assert port_of(name, port.get("targetPort", port["name"]))
    assert port_of("server", "http") == int(environment("server")["RIPPLE_PORT"] or 0)
    for name in OURS:
        annotations = WORKLOADS[name]["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == environment(name)["RIPPLE_METRICS_PORT"]
        assert port_of(name, "metrics") == int(annotations["prometheus.io/port"])
        assert environment(name)["RIPPLE_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - in the container
    assert re.search(rf"@redis:{port_of('redis', 'redis')}/0$", environment("worker")["REDIS_URL"] or "")


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists(name: str) -> None:
    assert {key for key in environment(name) if key.startswith("RIPPLE_")} <= SETTINGS


def test_the_kustomization_says_how_its_images_are_made() -> None:
    comment = (FOLDER / "kustomization.yaml").read_text()
    for image in KUSTOMIZATION["images"]:
        tag = f"{image['newName']}:{image['newTag']}"
        dockerfile = f"docker/{image['name'].removeprefix('timeripple-')}.Dockerfile"
        assert (ROOT / dockerfile).is_file()
        assert f"#   docker build -f {dockerfile} -t {tag} .\n" in comment
        assert f"#   docker push {tag}\n" in comment


def test_the_kustomization_names_the_jobs_that_alerts_ask_for() -> None:
    asked = set(re.findall(r'job="([^"]+)"', (ROOT / "docker/prometheus/rules.yml").read_text()))
    assert asked
    for job in asked:
        assert job in (FOLDER / "kustomization.yaml").read_text()


@every_workload
def test_the_secret_holds_what_is_asked_of_it(name: str) -> None:
    """It is in no file; the kustomization says how it is made."""
    made = re.search(r"create secret generic (\w+) --from-literal=(\w+)=", (FOLDER / "kustomization.yaml").read_text())
    assert made is not None
    assert set(secret_keys(name)) == {(made[1], made[2])}
    sources = [source["secretRef"]["name"] for source in container(name).get("envFrom", []) if "secretRef" in source]
    assert set(sources) <= {made[1]}


@every_workload
def test_a_container_is_shut_in_as_the_namespace_demands(name: str) -> None:
    enforced = named("Namespace", "timeripple")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"
    security = pod(name)["securityContext"]
    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod(name)["automountServiceAccountToken"]
    assert {"cpu", "memory"} <= set(container(name)["resources"]["requests"])
    assert "memory" in container(name)["resources"]["limits"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_runs_as_the_image_does(name: str) -> None:
    image = read_stages(ROOT / f"docker/{name}.Dockerfile")[-1].user if name in OURS else "999:1000"
    assert image == COMPOSE["services"][name].get("user", image)
    security = pod(name)["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == image


@pytest.mark.parametrize("name", OURS)
def test_whatever_is_written_goes_into_a_volume(name: str) -> None:
    mounts = {mount["mountPath"]: mount for mount in container(name)["volumeMounts"]}
    image = read_stages(ROOT / f"docker/{name}.Dockerfile")[-1]
    told = image.environment | environment(name)
    folders = {"/" + value.split("/")[1] for key, value in told.items() if key != "PATH" and value and value[0] == "/"}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert folders | {"/tmp"} <= writable  # noqa: S108 - in the container
    assert set(image.all("VOLUME")[0].split()) <= set(mounts)


@every_workload
def test_volumes_exist(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(name).get("volumes", [])}
    claimed = {claim["metadata"]["name"] for claim in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == set(volumes) | claimed
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            claim = named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            # Server and workers share them, on several nodes.
            assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("name", OURS)
def test_probes_ask_what_is_answered(name: str) -> None:
    # A worker answers at its port for metrics alone, whatever the path.
    paths = {"server": {getattr(route, "path", "") for route in ops.router.routes}, "worker": {"/metrics"}}[name]
    probes = {key: value for key, value in container(name).items() if key.endswith("Probe")}
    assert {"readinessProbe", "livenessProbe"} <= set(probes)
    for probe in probes.values():
        if "httpGet" in probe:
            assert probe["httpGet"]["path"] in paths
        assert port_of(name, (probe.get("httpGet") or probe["tcpSocket"])["port"])


def test_a_worker_has_time_to_load_and_is_not_ended_by_a_scrape_that_hangs() -> None:
    startup = container("worker")["startupProbe"]
    longest = WorkerSettings.model_fields["load_seconds"].default
    assert startup["periodSeconds"] * startup["failureThreshold"] >= longest
    for probe in ("readinessProbe", "livenessProbe"):
        assert "httpGet" not in container("worker")[probe]


@pytest.mark.parametrize("name", OURS)
def test_files_of_a_volume_do_not_change_owner_at_every_start(name: str) -> None:
    assert pod(name)["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def test_a_worker_has_a_gpu_and_time_to_hand_its_job_back() -> None:
    assert container("worker")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in container("server")["resources"]["limits"]
    drain = float(environment("worker")["RIPPLE_DRAIN_SECONDS"] or 0)
    # The last ten: for Redis to come back.
    longest = drain + WorkerSettings.model_fields["cancel_grace_seconds"].default + 10
    assert pod("worker")["terminationGracePeriodSeconds"] > longest


def test_the_scaler_alone_says_how_many_workers_there_are() -> None:
    (scaler,) = of_kind("ScaledObject")
    target = WORKLOADS[scaler["spec"]["scaleTargetRef"]["name"]]
    assert target["kind"] == "Deployment"
    # Every `kubectl apply` would set it back.
    assert "replicas" not in target["spec"]


def test_workers_are_dropped_one_by_one() -> None:
    behavior = of_kind("ScaledObject")[0]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert [(one["type"], one["value"]) for one in behavior["scaleDown"]["policies"]] == [("Pods", 1)]


def test_the_scaler_asks_for_metrics_that_the_api_has(redis_client: Redis, redis_server: Any, tmp_path: Path) -> None:
    assert redis_client.dbsize() == 0
    with TestClient(create_app(ServerSettings(redis_url=redis_server.url, data_dir=tmp_path))) as client:
        scraped = Scrape(client.get("/metrics").text)
    (trigger,) = of_kind("ScaledObject")[0]["spec"]["triggers"]
    asked = re.findall(r'max\((timeripple_\w+)(?:\{(\w+)="(\w+)"\})?\)', trigger["metadata"]["query"])
    assert len(asked) == trigger["metadata"]["query"].count("timeripple_")
    for metric, label, value in asked:
        assert scraped.value(metric, **({label: value} if label else {})) == 0
    # A busy worker counts as one.
    assert f"{trigger['metadata']['threshold']} * max(timeripple_workers" in trigger["metadata"]["query"]
