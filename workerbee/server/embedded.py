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
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from workerbee import places
from workerbee.errors import ConnectionStringError, EmbeddedServerError
from workerbee.server import keeper
from workerbee.server.installation import (
    INSTEAD,
    Lock,
    Site,
    appearing,
    data_directory,
    installed,
    run,
    tail,
    version_of,
)
from workerbee.store import make_dsn

_PATIENCE = 300.0  # seconds; as recovery after a crash may take minutes on a slow disk
_TRIES = 3  # a keeper may be killed before its server is ready
_KEEPER_PAUSE = 1.0  # seconds between two keepers that a holder starts, as a server may refuse to start
_LOG_SIZE = 1_000_000  # bytes; a longer log is set aside at the next start, and the one before removed

# Written to postgresql.conf when the data directory is made, so that its owner may edit them.
_SETTINGS = {
    "max_connections": "200",
    "jit": "off",  # compiling takes longer than any of our queries
    "huge_pages": "off",
    "min_dynamic_shared_memory": "16MB",  # or it is in /dev/shm, which logout clears and containers limit
    "log_min_messages": "log",  # clients get their own errors anyway
    "log_checkpoints": "off",
}
_OPTIONS = ("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-p", "5432")

# The user's environment (PGSSLMODE=require, say) is meant for other servers. libpq doesn't look up an option there that
# is given, even as an empty text.
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

    def __init__(self, site: Site, hold: Lock, *, made: bool) -> None:
        self.dsn = _dsn(site.runtime)
        self.data = site.data
        self.made = made
        self._hold = hold
        _stand_by(site, hold)

    def close(self) -> None:
        """Let go of the server. Connections of this process to it may be cut from now on."""
        self._hold.close()


def start(home: Path | None = None) -> EmbeddedServer:
    """Hold the embedded server of this user and host; it is started, and made, if need be.

    Raises EmbeddedServerError if that can't be done.
    """
    try:
        site = Site.find(home)
        hold = _hold(site)
        try:
            made = not site.data.exists()
            _ensure_running(site)
        except BaseException:
            _undo_hold(site, hold)
            raise
    except OSError as error:
        raise EmbeddedServerError(f"the embedded PostgreSQL can't be started: {error}; {INSTEAD[3:]}") from error
    return EmbeddedServer(site, hold, made=made)


def _dsn(runtime: Path) -> str:
    """Give the server as a connection string that leaves nothing to the environment."""
    address = {"host": runtime, "port": 5432, "user": "postgres", "dbname": "postgres"}
    return make_dsn(None, **address, **{name: value for name, value in _PLAIN.items() if _is_known(name)})


@functools.cache
def _is_known(option: str) -> bool:
    """Tell whether this libpq has the option, which may be newer."""
    try:
        make_dsn(f"{option}=''")
    except ConnectionStringError:
        return False
    return True


def other_hosts(home: Path | None = None) -> list[str]:
    """Give the other hosts that have data of the present PostgreSQL major in the same home directory."""
    ours = data_directory(home or places.home(), version_of(installed()))
    return sorted(path.parent.name for path in ours.parent.glob("[!.]*/PG_VERSION") if path.parent != ours)


# Holding, starting and waiting


def _hold(site: Site) -> Lock:
    """Take a shared lock on the runtime directory, which is made if need be. Wait while a keeper removes it."""
    while True:
        with contextlib.suppress(FileExistsError):
            site.runtime.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            hold = Lock(site.runtime, os.O_RDONLY | os.O_DIRECTORY)
            _make_private(site, hold.fd)
            hold.take(fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(hold.fd), site.runtime.stat()):
                return hold
            hold.close()


def _make_private(site: Site, fd: int) -> None:
    """Raise unless the runtime directory belongs to us alone; give it to whom the server runs as."""
    status = os.fstat(fd)
    owner = keeper.credentials(site.account)
    uid = owner.get("user", os.geteuid())
    if status.st_uid not in (uid, os.geteuid()) or status.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{site.runtime} belongs to another user, or others can enter it; remove it, {INSTEAD}"
        )
    if status.st_uid != uid:
        os.fchown(fd, uid, owner["group"])


def _ensure_running(site: Site) -> None:
    """Return when the server accepts connections and has a keeper; become the one who starts them if need be.

    Whoever gets ``keeper.lock`` starts a keeper, who inherits it; so it is free again when the keeper
    has ended, and everybody else waits for its server.
    """
    tries = 0
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.closing(Lock(site.runtime / "keeper.lock", os.O_RDWR | os.O_CREAT)) as lock:
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


#: This process's holds on each server that a thread of it stands by for; the lock is for changes of this.
_stood_by: dict[Site, list[Lock]] = {}
_standing = threading.Lock()


def _stand_by(site: Site, hold: Lock) -> None:
    """Start another keeper whenever there is none, as after ``pkill -9``, until the hold is closed."""
    with _standing:
        is_first = site not in _stood_by
        _stood_by.setdefault(site, []).append(hold)
    if is_first:  # one thread serves all holds: it can't be woken while a keeper is there
        threading.Thread(target=_replace_keepers, args=(site,), name="workerbee server", daemon=True).start()


def _replace_keepers(site: Site) -> None:
    try:
        while _is_held(site):
            with contextlib.closing(Lock(site.runtime / "keeper.lock", os.O_RDWR)) as lock:
                lock.take(fcntl.LOCK_EX)
                if _is_held(site):
                    _start_keeper(site, lock)
            time.sleep(_KEEPER_PAUSE)
    except OSError:  # the runtime directory was removed meanwhile; newcomers make another
        with _standing:
            _stood_by.pop(site, None)


def _is_held(site: Site) -> bool:
    """Tell whether this process has a hold; if not, nobody stands by from now on."""
    with _standing:
        left = [hold for hold in _stood_by.pop(site, ()) if hold.close.alive]
        if left:
            _stood_by[site] = left
    return bool(left)


def _stand_by_for_nobody() -> None:
    """Forget the server in a forked child, which holds nothing and has no such thread."""
    global _standing  # noqa: PLW0603 (the parent's may be locked by a thread that isn't here)
    _standing = threading.Lock()
    _stood_by.clear()


os.register_at_fork(after_in_child=_stand_by_for_nobody)


def _undo_hold(site: Site, hold: Lock) -> None:
    """Give up: let go, and remove the runtime directory if no keeper is there to do it."""
    with (
        contextlib.suppress(OSError),
        contextlib.closing(Lock(site.runtime / "keeper.lock", os.O_RDWR)) as lock,
    ):
        if lock.take(fcntl.LOCK_EX | fcntl.LOCK_NB) and hold.take(fcntl.LOCK_EX | fcntl.LOCK_NB):
            keeper.remove_runtime(str(site.runtime), hold.fd)
    hold.close()


def _initdb(site: Site, lock: Lock) -> None:
    """Make the data directory. The lock stays taken until initdb has ended, whatever becomes of us."""
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    options += [f"--set={name}={value}" for name, value in _SETTINGS.items()]
    with appearing(site.data) as new:
        if owner := keeper.credentials(site.account):
            os.chown(new, owner["user"], owner["group"])
        process = run(site.account, site.binaries / "initdb", *options, "-D", new, pass_fds=(lock.fd,))
        if process.returncode:
            raise EmbeddedServerError(
                f"the embedded PostgreSQL's data can't be made in {site.data}, initdb says: "
                f"{tail(process.stdout)}; put that right, {INSTEAD}"
            )


def _start_keeper(site: Site, lock: Lock) -> None:
    """Start the keeper with nothing of ours but the lock. If it fails, that is free, and the log says why."""
    script = (sys.executable, "-I", "-S", keeper.__file__, site.runtime, site.data, site.account)
    server = (site.binaries / "postgres", "-D", site.data, "-k", site.runtime)
    with _open_log(site) as log:  # in a session of its own, so that Ctrl-C in our terminal doesn't reach it
        run("-", *script, *server, *_OPTIONS, output=log, pass_fds=(lock.fd,), start_new_session=True)


def _open_log(site: Site) -> BinaryIO:
    """Open the server's log to append to it; set a long one aside."""
    path = site.data / "postgres.log"
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_SIZE:
            path.replace(path.with_suffix(".log.1"))
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if owner := keeper.credentials(site.account):
        os.fchown(fd, owner["user"], owner["group"])
    return os.fdopen(fd, "ab")


def _is_ready(site: Site) -> bool:
    """Tell whether the postmaster says that it is ready, and listens, as that may be a dead one's last word."""
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


def _server_error(site: Site, what: str) -> EmbeddedServerError:
    log = site.data / "postgres.log"
    last = tail(log.read_text(errors="replace"))
    return EmbeddedServerError(f"the embedded PostgreSQL {what}; {log} ends with: {last}; put that right, {INSTEAD}")
