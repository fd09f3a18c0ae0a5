"""The checkup: can this machine work with the server that is meant? It gives one verdict after another."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from workerbee import places, reading, server
from workerbee.errors import KeyFileError, WorkerbeeError, text_of
from workerbee.wire.signing import Key, Signer

#: Seconds to wait for a port to answer, and seconds by which a clock may be wrong without a remark.
PORT_SECONDS, CLOCK_SECONDS = 5.0, 2.0
#: Round trips that are measured; jobsets whose keys are compared, and those whose places of large values are tried.
LOOKS, JOBSETS, LATEST = 5, 1000, 50
#: Less free bytes on the embedded server's disk, or a larger share of used connections, is remarked on.
FREE_BYTES, CROWDED = 1e9, 0.8
NEEDED = ("cloudpickle", "click", "rich", "platformdirs", "xxhash")
BAD, OK, REMARK = "bad", "ok", "remark"


class Verdict(NamedTuple):
    """A finding: what was looked at, how it is (``ok``, ``bad``, or a ``remark``), and a sentence."""

    what: str
    verdict: str
    said: str


def checkup(dsn: str | None) -> Iterator[Verdict]:
    """Look at everything from here to the server; what can't be reached is the last verdict."""
    yield _python()
    yield _packages()
    yield _key()
    try:
        found = server.of_command(dsn)
    except (WorkerbeeError, ValueError) as error:
        yield Verdict("server", BAD, text_of(error))
        return
    with found:
        yield Verdict("server", OK, f"{found!r}")
        yield from _ways(found)
        try:
            with reading.connected(found.dsn) as connection:
                yield from _database(connection, is_local=found.is_local)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the verdict)
            yield Verdict("connection", BAD, text_of(error).strip())


def _python() -> Verdict:
    said = f"Python {platform.python_version()} in {sys.prefix}"
    return Verdict("python", OK if sys.version_info >= (3, 10) else BAD, said)


def _packages() -> Verdict:
    versions = {name: _version(name) for name in NEEDED}
    lacking = [name for name, version in versions.items() if version is None]
    if lacking:
        return Verdict("packages", BAD, f"not installed: pip install {' '.join(lacking)}")
    ours = f"workerbee-executor {_version('workerbee-executor') or '(not installed, but imported)'}"
    ours += f", psycopg2 {_version('psycopg2-binary') or _version('psycopg2')}"
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    return Verdict("packages", OK, f"{ours}, {known}")


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _key() -> Verdict:
    try:
        key = Key.load()
    except KeyFileError as error:
        return Verdict("key", BAD, str(error))
    if key is None:
        return Verdict("key", REMARK, f"none yet: the first client makes {places.key()}; a bee needs a copy of it")
    return Verdict("key", OK, f"{key.fingerprint} in {places.key()}")


# The way to the server


def _ways(found: server.Server) -> Iterator[Verdict]:
    if found.data is not None:
        yield _room(found.data)
        return
    if not found.addresses:
        yield Verdict("name", REMARK, "only libpq knows the address: of a service, or its own socket")
    ways = [verdict for host, port in found.addresses for verdict in _way(host, port)]
    # If there are several addresses, one that answers is enough, and the connection shows whether there is one.
    worst = REMARK if len(found.addresses) > 1 else BAD
    yield from (way._replace(verdict=worst) if way.verdict == BAD else way for way in ways)


def _way(host: str, port: str) -> list[Verdict]:
    """Look at one address."""
    if host.startswith(("/", "@")):
        return [_socket(Path(host) / f".s.PGSQL.{port}")]
    began = time.monotonic()
    try:
        known = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        return [Verdict("name", BAD, f"{host} isn't known here: {text_of(error)}; is it written right?")]
    known_as = sorted({str(address[0]) for *_, address in known})
    return [Verdict("name", OK, f"{host} is {', '.join(known_as)} ({_took(began)})"), _port(host, int(port))]


def _port(host: str, port: int) -> Verdict:
    began = time.monotonic()
    try:
        socket.create_connection((host, port), PORT_SECONDS).close()
    except OSError as error:
        why = "nobody listens there" if isinstance(error, ConnectionRefusedError) else text_of(error)
        advice = "is PostgreSQL started, with listen_addresses, and does a firewall let this machine through?"
        return Verdict("port", BAD, f"{host} port {port}: {why}; {advice}")
    return Verdict("port", OK, f"{host} port {port} answers ({_took(began)})")


def _socket(path: Path) -> Verdict:
    if path.exists() or str(path).startswith("@"):
        return Verdict("port", OK, f"the socket {path} is there")
    return Verdict("port", BAD, f"there is no socket {path}; is PostgreSQL started, and is this its directory?")


def _room(data: Path) -> Verdict:
    free = shutil.disk_usage(data).free
    said = f"{free / 1e9:,.1f} GB are free for {data}"
    return Verdict("disk", OK if free >= FREE_BYTES else BAD, said if free >= FREE_BYTES else f"only {said}")


# What the server says


def _database(connection: reading.Connection, *, is_local: bool) -> Iterator[Verdict]:
    reader = reading.Reader(connection)
    trips, offsets = _looks(reader)
    yield Verdict("connection", OK, "the server lets us in")
    tls = connection.encryption
    none = "none, on this machine" if is_local else "not encrypted; sslmode=require in --dsn demands it"
    yield Verdict("tls", OK if tls or is_local else REMARK, tls or none)
    line = reader.server_line()
    yield Verdict("server version", OK, f"PostgreSQL {line.version}, database {line.database}")
    there = _schema(connection)
    yield from there
    yield _rights(connection)
    said = "direct" if connection.is_direct else "a pooler is in between, so that everything is polled"
    yield Verdict("pooler", OK if connection.is_direct else REMARK, said)
    yield Verdict("latency", OK if min(trips) < 0.1 else REMARK, f"{1e3 * min(trips):.1f} ms there and back")
    yield _clock(offsets[trips.index(min(trips))])
    is_crowded = line.connections > CROWDED * line.max_connections
    said = f"{line.connections:,} of {line.max_connections:,} connections are in use; a bee takes one, a client three"
    yield Verdict("connections", REMARK if is_crowded else OK, said)
    if all(verdict.verdict == OK for verdict in there):
        yield from _company(reader)


def _looks(reader: reading.Reader) -> tuple[list[float], list[float]]:
    """Measure some round trips, in seconds, and how far the server's clock was ahead of ours in each."""
    trips, offsets = [], []
    for _ in range(LOOKS):
        began, before = time.monotonic(), time.time()
        theirs = reader.clock()
        trips.append(time.monotonic() - began)
        offsets.append(theirs - before - trips[-1] / 2)
    return trips, offsets


def _schema(connection: reading.Connection) -> list[Verdict]:
    try:
        present, needed = reading.version_here(connection), reading.needed_version()
    except WorkerbeeError as error:
        return [Verdict("schema", BAD, str(error))]
    if not present:
        return [Verdict("schema", REMARK, "not here yet: the first client, or workerbee schema install, makes it")]
    if present < needed:
        said = f"version {present}, and this program needs {needed}: workerbee schema upgrade"
        return [Verdict("schema", BAD, said)]
    return [Verdict("schema", OK, f"version {present}")]


def _rights(connection: reading.Connection) -> Verdict:
    lacking = reading.lacking_rights(connection)
    return Verdict("privileges", OK if lacking is None else BAD, lacking or "this user may bring and run jobs here")


def _clock(offset: float) -> Verdict:
    which = "behind" if offset > 0 else "ahead of"
    if abs(offset) < CLOCK_SECONDS:
        return Verdict("clock", OK, f"{abs(offset):.2f} s {which} the server's")
    said = f"{abs(offset):.0f} s {which} the server's; jobs don't mind, but logs of both don't fit together"
    return Verdict("clock", REMARK, said)


def _company(reader: reading.Reader) -> Iterator[Verdict]:
    """Compare this machine with others that work here."""
    with suppress(KeyFileError):
        ours = Key.load()
        fingerprint = None if ours is None else ours.fingerprint
        strange = [row.jobset.name for row in reader.jobsets(JOBSETS) if row.jobset.key not in (None, fingerprint)]
        if strange:
            names = ", ".join(strange[:5]) + (" …" if len(strange) > 5 else "")
            said = f"{len(strange):,} jobsets are signed with another key than the one here, which can't run them: "
            yield Verdict("keys of jobsets", REMARK, said + names)
        yield from _places(reader, ours)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = {bee.python for bee in reader.bees() if bee.alive} - {here}
    if others:
        said = f"bees with Python {', '.join(sorted(others))} are there, and can't run what Python {here} pickles"
        yield Verdict("python of bees", REMARK, said)


def _places(reader: reading.Reader, key: Key | None) -> Iterator[Verdict]:
    """Look whether large values of the latest jobsets can be stored from here: a file is written, and removed."""
    for row in reader.jobsets(LATEST):
        stored = reading.Reading(reader.connection, row.jobset, None if key is None else Signer(key, row.jobset.uuid))
        for said in stored.unusable_places():
            yield Verdict("large values", REMARK, f"{row.jobset.name}: {said}")


def _took(began: float) -> str:
    return f"{1e3 * (time.monotonic() - began):.0f} ms"
