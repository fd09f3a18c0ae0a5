"""Which PostgreSQL: the one that arguments or libpq's environment name, else the embedded one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workerbee import places, resources
from workerbee.program import occupy_standard_descriptors
from workerbee.store import dsn_parts, has_password, make_dsn
from workerbee.wire import signing

if TYPE_CHECKING:
    from typing_extensions import Self

#: Any of these in the environment names a server; nothing else does.
ENVIRONMENT = ("PGHOST", "PGHOSTADDR", "PGSERVICE")
#: The parts of a connection string that say where an embedded server is.
ADDRESS = ("host", "port", "user", "dbname")


class Server:
    """A server to connect to. An embedded one runs as long as somebody holds it; `close` gives up this hold."""

    def __init__(self, dsn: str, *, embedded: Any = None) -> None:
        self.dsn = dsn
        self._embedded = embedded
        self._held = True

    @property
    def is_local(self) -> bool:
        """Tell whether it runs on this machine, as far as its address says."""
        if self._embedded is not None:
            return True
        parts = dsn_parts(self.dsn)
        host = _said(parts, "hostaddr", "host")
        if "service" in parts or ("PGSERVICE" in os.environ and not host):
            return False
        here = ("", "localhost", "::1", resources.host())
        return host.startswith(("/", "127.")) or host in here

    @property
    def data(self) -> Path | None:
        """The directory of an embedded server's data; None of any other."""
        return None if self._embedded is None else Path(self._embedded.data)

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The hosts, or directories of sockets, and ports that are tried; none where only libpq knows."""
        parts = dsn_parts(self.dsn)
        hosts = [host for host in _said(parts, "hostaddr", "host").split(",") if host]
        ports = (_said(parts, "port") or "5432").split(",")
        return [(host, ports[n] if len(ports) > 1 else ports[0]) for n, host in enumerate(hosts)]

    def for_programs(self) -> tuple[str, dict[str, str]]:
        """Give a connection string and an environment for programs that have a libpq of their own.

        For an embedded server they have only parts that any libpq knows, and the environment's settings, which are
        meant for other servers, are taken out.
        """
        environment = dict(os.environ)
        if self._embedded is None:
            return self.dsn, environment
        parts = {name: value for name, value in dsn_parts(self.dsn).items() if name in ADDRESS}
        return make_dsn(None, **parts), {k: v for k, v in environment.items() if not k.startswith("PG")}

    def __repr__(self) -> str:
        if self._embedded is not None:
            return f"the embedded PostgreSQL with its data in {self._embedded.data}"
        parts = {
            k: v
            for k, v in dsn_parts(self.dsn).items()
            if k in ("host", "hostaddr", "port", "user", "dbname", "service")
        }
        return "PostgreSQL at " + (
            " ".join(f"{k}={v}" for k, v in parts.items()) or "the address that the environment names"
        )

    def close(self) -> None:
        self._held = False
        if self._embedded is not None:
            self._embedded.close()

    def key(self) -> signing.Key:
        """Load the user's key, made if need be. Beside an embedded server's data there is a copy of it."""
        key = signing.Key.load_or_make()
        if self._embedded is not None:
            signing.keep()
        return key

    def reopened(self) -> Server:
        """Give the same server, with a hold of its own if this one has let go of it."""
        if self._embedded is None or self._held:
            return Server(self.dsn)
        return _embedded(dsn_parts(self.dsn).get("dbname"), logging.getLogger("workerbee"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()


def _said(parts: dict[str, str], *names: str) -> str:
    """Give what a connection string says by the first of these names, or else libpq's environment; '' without any."""
    all_said = (*(parts.get(name, "") for name in names), *(os.environ.get(f"PG{name.upper()}", "") for name in names))
    return next(filter(None, all_said), "")


def resolve(dsn: str | None = None, logger: logging.Logger | None = None, **parts: object) -> Server:
    """Find the server that ``dsn`` or ``parts`` (host, port, user, password, dbname) or the environment name.

    With none of them, start or join the embedded one. The first line logged says which it is. Raises
    ValueError when parts say how to reach a server that nothing names, and EmbeddedServerError when there is
    nothing to start.
    """
    occupy_standard_descriptors()  # before anything is opened
    named = dsn is not None or parts.get("host") is not None or any(os.environ.get(v) for v in ENVIRONMENT)
    useless = [name for name in ("port", "user", "password") if parts.get(name) is not None]
    if useless and not named:
        raise ValueError(f"{' and '.join(useless)} of which server? Give host or dsn too, or set PGHOST")
    logger = logger or logging.getLogger("workerbee")
    server = Server(make_dsn(dsn, **parts)) if named else _embedded(parts.get("dbname"), logger)
    logger.info("using %r", server)
    return server


def of_command(dsn: str | None) -> Server:
    """Find the server that the ``--dsn`` of a command, or the environment, names. Raises as `resolve` does."""
    if dsn is not None and has_password(dsn):
        logging.getLogger("workerbee").warning(
            "while this runs, everybody on this machine can see the password in --dsn (by ps); put it into ~/.pgpass"
        )
    return resolve(dsn)


def _embedded(dbname: object, logger: logging.Logger) -> Server:
    from workerbee.server import embedded  # noqa: PLC0415 (only who needs it pays for it)

    signing.keep()
    handle = embedded.start()
    if handle.made and places.home() == places.makeshift():
        logger.warning(
            "there is no home directory to write to: the data are kept in %s; name a lasting place by WORKERBEE_HOME",
            places.home(),
        )
    if handle.made and (others := embedded.other_hosts()):
        logger.warning(
            "%s is new: jobsets of earlier runs may be in that of another host, %s; to go on with one, give this "
            "machine or container that host's name (docker run --hostname), or end all that uses either and move it to "
            "the place of this one",
            handle.data,
            ", ".join(str(handle.data.with_name(host)) for host in others),
        )
    return Server(make_dsn(handle.dsn, dbname=dbname), embedded=handle)
