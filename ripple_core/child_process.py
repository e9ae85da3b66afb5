"""What processes have in common that own a device for another one: how they end, and what they leave to it."""

import ctypes
import os
import signal
import sys

# After some errors of a GPU no call succeeds in a process any more, and it ends with this code.
EXIT_DEVICE_BROKEN = 70
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens (on Linux); at once if it has.

    Args:
        parent: process id of whoever started this one.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def leave_signals_to_parent() -> None:
    """Ignore SIGTERM and Ctrl-C, which reach whole process groups: the parent decides when we end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def in_a_line(error: Exception) -> str:
    """An error nobody expected, for people who do not read stack traces."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:500]
