"""What the embedded server keeps on this host, who uses it, and how it is stopped. Nothing here starts it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from workerbee import places, resources
from workerbee.errors import EmbeddedServerError
from workerbee.server import keeper
from workerbee.server.installation import data_directory, installed, runtime_directory, version_of

#: Seconds for which a stop is waited for, and between looks.
PATIENCE_SECONDS, LOOK_SECONDS = 60.0, 0.05
KEEPER = "workerbee-keep"


class Directory(NamedTuple):
    """A directory of ours, and how many bytes are in it."""

    path: Path
    size: int


class User(NamedTuple):
    """A process that holds the server, by its number and its command."""

    pid: int
    command: str


class Kept(NamedTuple):
    """All that there is: the ``data`` of this host (they needn't be there yet), and beside them what else is ours.

    ``pid`` is the running server's, None if none runs; ``state`` is what it says of itself. ``key`` is the copy of the
    key beside the data.
    """

    home: Path
    data: Directory
    is_there: bool
    pid: int | None
    state: str
    users: list[User]
    others: list[Directory]
    key: Path | None


def look() -> Kept:
    """Look what there is. Raises EmbeddedServerError where there are no data and no server to make them."""
    home = places.home()
    data = _data(home)
    found = sorted(path.parent for path in home.glob("postgres-*/[!.]*/PG_VERSION"))
    others = [*(path for path in found if path != data), *sorted(home.glob("bin-*"))]
    pid, state = keeper.said(str(data))
    is_running = bool(pid) and _works_in(pid, data)
    copy = places.kept_key()
    return Kept(
        home=home,
        data=Directory(data, _size(data)),
        is_there=data in found,
        pid=pid if is_running else None,
        state=state if is_running else "",
        users=_users(runtime_directory(data)),
        others=[Directory(path, _size(path)) for path in others],
        key=copy if copy.exists() else None,
    )


def stop(kept: Kept) -> bool:
    """Stop a server that nobody uses; False if it hasn't ended in time."""
    if kept.pid is not None:
        with suppress(ProcessLookupError):
            keeper.signal_postmaster(str(kept.data.path), signal.SIGINT)
    end = time.monotonic() + PATIENCE_SECONDS
    while kept.pid is not None and _works_in(kept.pid, kept.data.path):
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _data(home: Path) -> Path:
    """Find this host's data: of the PostgreSQL that is installed, else of the newest that was."""
    try:
        return data_directory(home, version_of(installed()))
    except EmbeddedServerError:
        there = sorted(home.glob(f"postgres-*/{resources.host()}/PG_VERSION"))
        if not there:
            raise
        return there[-1].parent


def _works_in(pid: int, data: Path) -> bool:
    """True if this process is alive and the server of these data, as far as one can see."""
    try:
        return Path(f"/proc/{pid}/cwd").samefile(data)
    except PermissionError:  # another user's, as root's server is seen by others
        return True
    except OSError:
        return False


def _users(runtime: Path) -> list[User]:
    """Give the processes that hold the server: they have its runtime directory open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            holds = any(os.readlink(fd) == str(runtime) for fd in (process / "fd").iterdir())  # noqa: PTH115
            if holds and (process / "comm").read_text().strip() != KEEPER:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                found.append(User(int(process.name), command))
    return sorted(found)


def _size(directory: Path) -> int:
    """Count the bytes of the files in a directory, as far as they can be seen."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 (many files)
    return total
