"""The guardian process, which outlives its bee and cleans up after it. It needs the standard library alone.

    guard.py [DIRECTORY …]

It reads lines from the bee, each with all process groups of the moment. At the bee's end it kills those of the last
line. It removes each DIRECTORY in memory, when the client that holds it is gone too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time

#: Seconds to wait for the end of a client that is killed together with its bee, and between two looks.
PATIENCE, LOOK = 10.0, 0.05


def main(*directories: str) -> None:
    """Wait for the bee's end, then do what it can't do any more."""
    groups = b""
    for line in sys.stdin.buffer:
        groups = line
    for group in groups.split():
        with contextlib.suppress(OSError):
            os.killpg(int(group), 9)
    deadline = time.monotonic() + PATIENCE
    for directory in directories:
        while not remove_unused(directory) and time.monotonic() < deadline:
            time.sleep(LOOK)


def remove_unused(directory: str) -> bool:
    """Remove a directory of ours with its files, unless somebody holds it. True if it is gone, or isn't ours."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        if os.fstat(held).st_uid != os.geteuid():
            return True
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(held):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=held)
        with contextlib.suppress(OSError):
            os.rmdir(directory)
    except OSError:
        return False
    finally:
        os.close(held)
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
