"""The process that outlives a bee, and what it does then: a script with nothing but the standard library.

    guard.py [DIRECTORY]

It reads lines of process groups from the bee, each the whole list as it is now, until the bee's end, and kills them.
The DIRECTORY, through which the bee's client shares memory with it, goes when the client is gone too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time

#: Seconds in which a client that is killed together with its bee is gone as well, and between two looks.
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
    """Remove a directory of ours with the files in it, unless somebody holds it; whether it is gone, or not ours."""
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
