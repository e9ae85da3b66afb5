"""Draining, without a worker around it; tests/faults has one."""

import os
import signal
import subprocess
import sys

from worker.shutdown import Shutdown

SCRIPT = """
import time
from worker.shutdown import Shutdown
shutdown = Shutdown(drain_seconds=60)
shutdown.listen(lambda: None)
print("ready", flush=True)
# The main thread holds the lock that setting the event needs, over and over.
while not shutdown.now.is_set():
    with shutdown.draining._cond:
        time.sleep(0.001)
    shutdown.draining.wait(0.001)
"""


def test_nothing_stops_before_a_signal_and_what_cannot_finish_stops_at_once() -> None:
    shutdown = Shutdown(drain_seconds=60)
    assert not shutdown.stops_job(1e9)
    shutdown.request()
    assert shutdown.draining.is_set()
    assert not shutdown.now.is_set()
    assert [shutdown.stops_job(eta) for eta in (None, 30.0, 90.0)] == [False, False, True]
    shutdown.request()
    assert shutdown.now.is_set()
    assert shutdown.stops_job(0.0)


def test_signals_are_heard_whatever_the_main_thread_does() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process.pid, number)
    # Two signals of the same kind that come together are one for the kernel; these are not of the same kind.
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
