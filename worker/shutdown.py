"""What SIGTERM and Ctrl-C ask for: at first to drain, the second time to end now."""

import signal
import socket
import time
from collections.abc import Callable
from threading import Event, Thread

# For Redis to come back, once the drain is over.
_LAST_SECONDS = 10.0


class Shutdown:
    """Shared by all who work or wait.

    Args:
        drain_seconds: what the running job may still take, if that is enough for it.

    Attributes:
        draining: set by the first signal.
        now: set by the second one.
    """

    def __init__(self, drain_seconds: float) -> None:
        self.draining = Event()
        self.now = Event()
        self._drain_seconds = drain_seconds
        self._drained_at = 0.0

    def listen(self, on_draining: Callable[[], None]) -> None:
        """Take SIGTERM and SIGINT in a thread of their own; call it in the main thread.

        A handler would run in the middle of whatever the main thread does, which may hold the lock of an event.

        Args:
            on_draining: called at the first signal.
        """
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        Thread(target=self._listen, args=(reader, on_draining), daemon=True, name="signals").start()

    def request(self) -> None:
        """What a signal asks for."""
        if self.draining.is_set():
            self.now.set()
        else:
            self._drained_at = time.monotonic() + self._drain_seconds
            self.draining.set()

    def stops_job(self, eta_s: float | None) -> bool:
        """Whether a job with so many seconds left must give way; one that cannot finish in time need not go on."""
        if not self.draining.is_set():
            return False
        return self.now.is_set() or time.monotonic() + (eta_s or 0.0) > self._drained_at

    @property
    def waits_no_longer(self) -> bool:
        """Whether it is too late to wait for Redis: others will find out that this worker is gone."""
        if not self.draining.is_set():
            return False
        return self.now.is_set() or time.monotonic() > self._drained_at + _LAST_SECONDS

    def _listen(self, wakeups: socket.socket, on_draining: Callable[[], None]) -> None:
        while True:
            # The numbers of the signals, a byte for each; children that end are none of our business.
            for number in wakeups.recv(16):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self.request()
                    on_draining()
