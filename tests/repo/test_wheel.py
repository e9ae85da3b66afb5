"""The wheel: what is in it, and what it can do in environments of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path

import httpx
import imageio_ffmpeg
import pytest
from ports import free_port

from ripple_core.contract.models import find_model

ROOT = Path(__file__).parents[2]
DATA = {
    "ripple_core/attention/kernels/tuned.json",
    "ripple_core/bench/prompts/reporting.txt",
    "ripple_core/bench/prompts/tuning.txt",
    "timeripple_client/py.typed",
}


class Environment:
    """A virtual environment."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        self.packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        # None of our settings, nor what would let our own modules in.
        names = r"RIPPLE_|REDIS_URL|OTEL_|PYTHON|TRITON_"
        self.variables = {name: value for name, value in os.environ.items() if not re.match(names, name)}

    def install(self, *requirements: str) -> None:
        """From the registry, as a user's pip would."""
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", self.bin / "python"]
        subprocess.run([*command, *requirements], check=True)

    def run(self, folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Every file of the repository, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder is left in the repository."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, source]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel and what it asks for by itself."""
    environment = Environment(tmp_path_factory.mktemp("base"))
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def with_our_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, with our own packages for all that it asks for, but without our own code."""
    environment = Environment(tmp_path_factory.mktemp("venv"))
    # Python reads no .pth files in a folder that one of them names: the repository stays out.
    (environment.packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment.install("--no-deps", "--offline", str(wheel))
    return environment


@contextmanager
def running(environment: Environment, folder: Path, command: str, ready: str) -> Iterator[httpx.Client]:
    """`ripple serve` or `ripple up`; a client once the path that says that it is ready does."""
    url = f"http://127.0.0.1:{free_port()}"
    ripple = [environment.bin / "ripple", command, "--port", url.rpartition(":")[2]]
    process = subprocess.Popen(ripple, cwd=folder, env=environment.variables)
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            deadline = time.monotonic() + 120
            while not answers(client, ready):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=120)


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def test_it_holds_code_model_and_data_and_nothing_else(wheel: Path, tracked: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    parts = ("ripple_core/", "server/", "worker/", "openapi/timeripple_client/")
    ours = {name.removeprefix("openapi/") for name in tracked if name.startswith(parts)}
    code = {name for name in ours if name.endswith(".py")}
    model = {name for name in ours if name.startswith("ripple_core/tiny/model/")}
    assert any(name.endswith(".safetensors") for name in model)
    page = {name for name in ours if name.startswith("server/static/")}
    assert {"server/static/index.html", "server/static/vendor.LICENSES.txt"} <= page
    assert {name for name in names if ".dist-info/" not in name} == code | model | page | DATA
    assert {name.rpartition("/")[2] for name in names if ".dist-info/" in name} == {
        *("METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt", "LICENSE")
    }


def test_torch_is_asked_for_by_extras_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    extras = {"server", "worker", "s3", "otel", "dev"}
    assert extras <= set(metadata.get_all("Provides-Extra", []))
    (torch,) = (line for line in metadata.get_all("Requires-Dist", []) if re.match(r"torch\b", line))
    assert 'extra == "worker"' in torch


def test_videos_are_made_from_the_wheel_in_an_empty_folder(with_our_packages: Environment, tmp_path: Path) -> None:
    code = (
        "import ripple_core, server, worker, timeripple_client as client; print(ripple_core.__file__, client.__file__)"
    )
    shown = with_our_packages.run(tmp_path, "python", "-c", code).stdout.split()
    assert all(Path(file).is_relative_to(with_our_packages.packages) for file in shown)
    with running(with_our_packages, tmp_path, "up", "/readyz") as client:
        request = ["a red circle", "--server", str(client.base_url), "--width", "64", "--height", "64", "--steps", "2"]
        with_our_packages.run(tmp_path, "ripple", "generate", *request, "--num-frames", "5", "--output", "out.mp4")
    assert imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "out.mp4"))[0] == 5


def test_without_extras_the_api_is_served(base: Environment, tmp_path: Path) -> None:
    assert "No module named 'torch'" in base.run(tmp_path, "python", "-c", "import torch", check=False).stderr
    examined = base.run(tmp_path, "ripple", "doctor", "--for", "server")
    assert "server: can run here" in examined.stdout
    with running(base, tmp_path, "serve", "/healthz") as client:
        assert client.get("/models").is_success
        for page in ("/", "/docs"):
            files = re.findall(r'(?:src|href)="/?((?!data:)[^"]+)"', client.get(page).text)
            assert any(name.endswith(".js") for name in files)
            assert [name for name in files if not client.get(f"/{name}").is_success] == []


@pytest.mark.parametrize(
    "command", ["demo", "up", "worker", "generate x --local", "calibrate model --psnr 30", "bench fidelity"]
)
def test_what_needs_torch_says_what_to_install(base: Environment, tmp_path: Path, command: str) -> None:
    done = base.run(tmp_path, "ripple", *command.split(), check=False)
    assert done.returncode == 1
    assert "pip install 'timeripple[worker]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(with_our_packages: Environment, tmp_path: Path) -> None:
    check_demo(with_our_packages, tmp_path)


@pytest.mark.slow
def test_the_demo_runs_on_what_the_wheel_asks_for(wheel: Path, tmp_path: Path) -> None:
    """All of it installed anew; several GB where torch comes with CUDA."""
    environment, folder = Environment(tmp_path / "venv"), tmp_path / "empty"
    folder.mkdir()
    environment.install(f"torch=={version('torch').partition('+')[0]}", f"{wheel}[worker]")
    assert "worker: can run here" in environment.run(folder, "ripple", "doctor").stdout
    check_demo(environment, folder)


def check_demo(environment: Environment, folder: Path) -> None:
    environment.run(folder, "ripple", "demo", "--output", "out.mp4")
    num_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(folder / "out.mp4"))
    assert num_frames == find_model("builtin").defaults.num_frames
    assert [path.name for path in folder.iterdir()] == ["out.mp4"]
