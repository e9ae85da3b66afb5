"""A way to a server on this machine that can be made slow or cut."""

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit


class SlowProxy:
    """Forwards TCP connections; every part of a request is held up for `delay_seconds`.

    Attributes:
        delay_seconds: may be changed at any time.
        is_cut: while True, connections are closed at once.
    """

    def __init__(self, upstream: str, delay_seconds: float = 0.0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self.delay_seconds = delay_seconds
        self.is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._upstream) as server:
            threading.Thread(target=self._copy, args=(server, client, False), daemon=True).start()
            self._copy(client, server, True)

    def _copy(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while not self.is_cut and (data := source.recv(65536)):
                if is_request:
                    time.sleep(self.delay_seconds)
                if self.is_cut:
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
