"""The process that starts the embedded PostgreSQL, and stops it when the last one who holds it is gone.

A script, started by `embedded` with nothing but the standard library, so that it is up in milliseconds::

    keeper.py RUNTIME DATA ACCOUNT POSTGRES ARGUMENT...

RUNTIME is the directory of the socket. Everybody who uses the server has a shared flock on that very
directory, so the exclusive one comes to the keeper when all of them have closed it or died, however
they died. Two files in it say who is alive: ``keeper.lock`` is locked by the keeper (who inherits it
locked) and ``server.lock`` by every process of the server (who inherit it too). ACCOUNT is ``UID:GID``
for a server that runs as somebody else, or ``-``.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

CRASH_PAUSE_SECONDS = 0.2  # seconds before a server that was killed is started again
STOP_REPEAT_SECONDS = 0.1  # seconds between two requests to stop, as the first may come before it listens
LOOK_SECONDS = 0.02  # seconds between looks at a server that starts
HALF_STOPPED_SECONDS = 1.0  # seconds between looks for a server that lets nobody in any more, but waits for who is


def main(runtime: str, data: str, account: str, *command: str) -> None:
    """Keep the server until nobody holds it, and leave no trace of it in ``runtime``'s parent then."""
    if os.fork():
        os._exit(0)  # the keeper is nobody's child: no zombie for whoever started it
    _ignore_signals()
    held = os.open(runtime, os.O_RDONLY)
    server = Postmaster(runtime, data, account, command)
    threading.Thread(target=server.stop_when_unused, args=(held,), daemon=True).start()
    threading.Thread(target=server.finish_stops, daemon=True).start()
    server.serve()
    if server.unused.is_set():
        remove_runtime(runtime, held)


def _ignore_signals() -> None:
    """Only the last holder's end ends the keeper, unless it is killed.

    A shutdown or ``pkill python`` ends the holders as well, and the server is stopped properly then.
    Handlers rather than SIG_IGN, which the server would inherit; a name of its own for ``pkill -9``.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it never hears how the server has ended
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as name:
        name.write("workerbee-keep")


class Postmaster:
    """The postmaster of the data directory: a child, or the orphan of a keeper that was killed."""

    def __init__(self, runtime: str, data: str, account: str, command: tuple[str, ...]) -> None:
        self.unused = threading.Event()
        self._runtime = runtime
        self._lock = os.path.join(runtime, "server.lock")
        self._data = data
        self._account = account
        self._command = command
        self._signal: Callable[[int], None] = _nobody

    def stop_when_unused(self, held: int) -> None:
        """Wait for the last holder of ``held``, then ask for a fast shutdown until this process ends.

        From then on newcomers wait for their shared lock until the server is gone and the keeper too.
        """
        fcntl.flock(held, fcntl.LOCK_EX)
        self.unused.set()
        while True:
            with contextlib.suppress(ProcessLookupError):
                self._signal(signal.SIGINT)
            time.sleep(STOP_REPEAT_SECONDS)

    def finish_stops(self) -> None:
        """End a server that waits for its sessions after a SIGTERM, since holders stay: then it starts again."""
        while not self.unused.wait(HALF_STOPPED_SECONDS):
            if said(self._data)[1] == "stopping":
                with contextlib.suppress(ProcessLookupError):
                    self._signal(signal.SIGINT)

    def serve(self) -> None:
        """Run the server while it is used, again after a crash or a stop. Return early if it can't be started.

        It had its reasons then, which are in the log; the next one who wants it may try again.
        """
        while self._serve_once() and not self.unused.wait(CRASH_PAUSE_SECONDS):
            pass

    def _serve_once(self) -> bool:
        """Run the server until its last process is gone; whether another one should follow."""
        process = None
        with open(self._lock, "w") as lock:  # closing it leaves the lock to the server, who inherits it
            if _taken(lock.fileno()):
                process = self._start(lock.fileno())
        self._signal = process.send_signal if process else functools.partial(signal_postmaster, self._data)
        is_followed = process is None or _has_served(process, self._data)
        with open(self._lock, "w") as lock:  # a killed postmaster's children may last a little longer
            fcntl.flock(lock, fcntl.LOCK_EX)
        self._signal = _nobody
        return is_followed

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        """Start the postmaster, who has ``server.lock`` and the data directory's own lock from here on."""
        with open(os.path.join(self._data, "PG_VERSION"), "r+") as version:
            if _guarded(version.fileno(), self._data):
                _forget_dead_postmaster(self._data)
            for name in (
                ".s.PGSQL.5432",
                ".s.PGSQL.5432.lock",
            ):  # a dead postmaster's, whose number is as stale
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._runtime, name))
            return subprocess.Popen(
                self._command,
                pass_fds=(lock, version.fileno()),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                **credentials(self._account),
            )


def credentials(account: str) -> dict[str, Any]:
    """Give the arguments that make `subprocess` run a program as ``account``."""
    if account == "-":
        return {}
    uid, gid = account.split(":")
    return {"user": int(uid), "group": int(gid), "extra_groups": []}


def _taken(fd: int) -> bool:
    """Take the exclusive lock if it is free."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _guarded(fd: int, data: str) -> bool:
    """Lock the data against servers that PostgreSQL's own check, by process number, can't see.

    Ends the keeper if there is one: in a container with this host's name, on another machine that
    shares the home and the name, or one whose directory in /tmp was removed. False if the file system
    has no locks, so that nothing can be said.
    """
    try:
        if _taken(fd):
            return True
    except OSError:
        return False
    sys.exit(f"FATAL: {data} is in use by a server that is out of sight: in another container, on another machine?")


def _forget_dead_postmaster(data: str) -> None:
    """Remove a crashed postmaster's pid file when its number is some other process's by now.

    PostgreSQL refuses to start while any process of this user has that number, which after a reboot,
    or in a container, soon happens. A living postmaster works in its data directory.
    """
    path = os.path.join(data, "postmaster.pid")
    if not os.path.exists("/proc/self/cwd"):
        return
    try:
        with open(path) as file:
            number = int(file.readline())
        if os.path.samefile(f"/proc/{number}/cwd", data):
            return
    except (PermissionError, ValueError):
        return
    except FileNotFoundError:  # no pid file, or nobody has that number (or only a zombie)
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _has_served(process: subprocess.Popen[bytes], data: str) -> bool:
    """Wait for the end of the postmaster: whether it was killed, or was ready before."""
    ready = False
    while not ready and process.poll() is None:
        ready = said(data) == (process.pid, "ready")
        time.sleep(LOOK_SECONDS)
    return process.wait() < 0 or ready


def said(data: str) -> tuple[int, str]:
    """Give the last postmaster's number, and what it says of itself: starting, ready or stopping."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(os.path.join(data, "postmaster.pid")) as file:
            words = file.read().split("\n")
        return int(words[0]), words[7].strip()
    return 0, ""


def _nobody(_signal: int) -> None:
    """Send a signal to no process."""


def signal_postmaster(data: str, number: int) -> None:
    """Send a signal to the postmaster that runs in ``data``."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        with open(os.path.join(data, "postmaster.pid")) as file:
            pid = int(file.readline())
        os.kill(pid, number)


def remove_runtime(runtime: str, held: int) -> None:
    """Remove the runtime directory, of which ``held`` has the exclusive lock.

    Renamed first, so that a newcomer finds either all of it or nothing. Not if the path means another
    directory by now.
    """
    with contextlib.suppress(FileNotFoundError):
        if not os.path.samestat(os.fstat(held), os.stat(runtime)):
            return
        gone = f"{runtime}.{os.getpid()}"
        os.rename(runtime, gone)
        for name in os.listdir(gone):
            os.unlink(os.path.join(gone, name))
        os.rmdir(gone)


if __name__ == "__main__":
    main(*sys.argv[1:])
