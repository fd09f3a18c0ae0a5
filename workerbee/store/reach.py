"""Reaching the server: by one address after the other, none waited for longer than it deserves.

psycopg2's asynchronous connecting has no time limits: the first of several addresses that takes what is sent and
answers nothing would keep us from the others. And looking a name up takes as long as it likes, so that another
thread does it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import extensions

from workerbee.errors import ConnectionStringError, DatabaseUnavailableError
from workerbee.store.patience import one_line
from workerbee.store.trouble import Trouble, kind_of

#: ``wait(fd, writing, seconds)`` waits until the descriptor is ready, and says whether it is.
Wait = Callable[[int, bool, float], bool]
#: Libpq's names of where the server is.
Address = dict[str, str]

#: Seconds in all; and for the first try of each address, if there are several.
CONNECT_SECONDS, FIRST_TRY_SECONDS = 10.0, 2.0
#: Seconds for which an address that gave no answer is tried after the others.
HUNG_SECONDS = 60.0

#: Connection strings by which this process has had an answer: what they say was right once.
_answered: set[str] = set()
_hung: dict[tuple[str, ...], float] = {}

# What libpq says before it has asked any server.
_MISTAKE = re.compile(
    r"^(invalid |could not match|definition of service|syntax error in service|weak sslmode|sslmode value"
    r"|.* option .* (unsupported|requires|is not)|unrecognized)"
)
# What no patience mends, where no SQLSTATE says so: libpq's own words, and PgBouncer's.
_REFUSAL = re.compile(
    r"authentication failed|auth failed|no password supplied|SSL was required|GSSAPI .* required|no such user"
    r"|no such database|root certificate file|certificate verify failed|authentication method requirement"
    r"|channel binding"
)
_VERBOSE, _DEFAULT = 2, 1
# FATAL:  28P01: … and, in a line of its own, where in the server's source that is.
_SQLSTATE = re.compile(r"(\w+:  )([0-9A-Z]{5}): ")
_PLACE = re.compile(r"\n[^\n]*:  \w+, [\w.-]+:\d+")


class Started(NamedTuple):
    """A connection on its way, and all the addresses that its string names."""

    pg: Any
    addresses: list[Address]


def connect(dsn: str, *, application: str, wait: Wait, deadline: float) -> Any:
    """Make an asynchronous connection that is ready for queries.

    Raises DatabaseUnavailableError: nobody answers, or what answers refuses us.
    """
    attempt = _Attempt(dsn, application, wait, min(deadline, time.monotonic() + CONNECT_SECONDS))
    pg = attempt.connect()
    _answered.add(dsn)
    return pg


def drive(pg: Any, wait: Wait, deadline: float) -> bool:
    """Send and receive until what is under way is done; False at the deadline, which moves as long as it comes."""
    patience = deadline - time.monotonic()
    while (state := pg.poll()) != extensions.POLL_OK:
        left = deadline - time.monotonic()
        if left <= 0 or not wait(pg.fileno(), state == extensions.POLL_WRITE, left):
            return False
        deadline = time.monotonic() + patience
    return True


class _Attempt:
    """One attempt at reaching a server, over all its addresses."""

    def __init__(self, dsn: str, application: str, wait: Wait, deadline: float) -> None:
        self._dsn = dsn
        self._application = application
        self._wait = wait
        self._deadline = deadline

    def connect(self) -> Any:
        pg, addresses = self._start({})
        if len(addresses) < 2:
            if self._finish(pg, addresses[0] if addresses else {}, CONNECT_SECONDS):
                return pg
            raise self._no_answer(addresses[0] if addresses else {})
        if not any(map(_is_hung, addresses)):
            at = str(pg.info.host or ""), str(pg.info.port)
            if self._finish(pg, addresses[0], _haste(pg)):  # where one refuses, libpq goes on by itself
                return pg
            _note_hung(next((a for a in addresses if (a["host"], a["port"]) == at), addresses[0]))
        pg.close()
        return self._try_each(sorted(addresses, key=_is_hung))

    def _try_each(self, addresses: list[Address]) -> Any:
        """Try one after the other, with more time in each round."""
        seconds = 0.0
        refusal: DatabaseUnavailableError | None = None
        while refusal is None and time.monotonic() < self._deadline:
            for address in addresses:
                if refusal is not None and _is_hung(address):
                    break  # who has answered is believed sooner
                pg, _ = self._start(address)
                seconds = max(seconds, _haste(pg))
                try:
                    if self._finish(pg, address, seconds):
                        return pg
                    _note_hung(address)
                except DatabaseUnavailableError as error:
                    refusal = error
            seconds *= 2
        raise refusal or self._no_answer(addresses[0])

    def _start(self, address: Address) -> Started:
        """Begin to connect, which looks names up, in another thread."""
        reader, writer = os.pipe()
        done: list[Started | BaseException] = []

        def begin() -> None:
            try:
                done.append(self._begin(address))
            except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                done.append(error)
            finally:
                with suppress(OSError):
                    os.write(writer, b"w")
                os.close(writer)

        try:
            threading.Thread(target=begin, name="workerbee names", daemon=True).start()
        except RuntimeError:  # the interpreter is ending, or there can be no more threads
            begin()
        try:
            self._wait(reader, False, max(0.0, self._deadline - time.monotonic()))  # noqa: FBT003 (reading)
        finally:
            os.close(reader)
        if not done:
            raise self._no_answer(address)
        if not isinstance(done[0], BaseException):
            return done[0]
        if isinstance(done[0], psycopg2.ProgrammingError):
            raise ConnectionStringError from None
        if isinstance(done[0], psycopg2.OperationalError):
            raise self._refused(address, done[0]) from done[0]
        raise done[0]

    def _begin(self, address: Address) -> Started:
        options: dict[str, Any] = {
            "client_encoding": "UTF8",
            "fallback_application_name": self._application,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 15000,
        }
        pg: Any = psycopg2.connect(self._dsn, async_=True, **(options | address))
        _speak(pg, _VERBOSE)
        return Started(pg, [address] if address else _addresses(pg.info.dsn_parameters))

    def _finish(self, pg: Any, address: Address, seconds: float) -> bool:
        """Drive the connection until it is ready; False, and it is closed, if there is no answer in time."""
        ready = False
        try:
            ready = drive(pg, self._wait, min(self._deadline, time.monotonic() + seconds))
        except psycopg2.OperationalError as error:
            raise self._refused(address, error) from error
        finally:
            _speak(pg, _DEFAULT)
            if not ready:
                pg.close()
        return ready

    def _no_answer(self, address: Address) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(
            f"can't connect to PostgreSQL{_where(address or self._named())}: no answer",
            stranger=self._dsn not in _answered,
        )

    def _refused(self, address: Address, error: psycopg2.Error) -> DatabaseUnavailableError:
        """Make of what libpq says an error that knows whether to wait."""
        text = _PLACE.sub("", str(error))
        found = _SQLSTATE.search(text)
        text = one_line(Exception(_SQLSTATE.sub(r"\1", text)))
        where = "" if "connection to server" in text else _where(address or self._named())
        advice = ""
        if "no password supplied" in text:
            advice = "; put it into ~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, mode 0600) or into PGPASSWORD"
        return DatabaseUnavailableError(
            f"can't connect to PostgreSQL{where}: {text}{advice}",
            hopeless=self._is_hopeless(found[2] if found else None, text),
            stranger=self._dsn not in _answered and (found is None or _is_strange(found[2])),
        )

    def _is_hopeless(self, sqlstate: str | None, text: str) -> bool:
        if sqlstate is None or sqlstate.startswith("08"):
            wrong = _MISTAKE.search(text) or (_REFUSAL.search(text) and self._dsn not in _answered)
            return bool(wrong)
        if sqlstate.startswith(("3D", "57P04")):
            return True
        # Who was let in before waits: passwords and rules are changed under way.
        wrong_kinds = (Trouble.HOPELESS, Trouble.UNSTORABLE, Trouble.DROPPED)
        refuses = kind_of(sqlstate) in wrong_kinds or sqlstate.startswith(("0A", "42"))
        return refuses and self._dsn not in _answered

    def _named(self) -> Address:
        """Say where the server is, as far as the connection string and the environment say."""
        given = extensions.parse_dsn(self._dsn)
        found = {name: given.get(name) or os.environ.get(f"PG{name.upper()}", "") for name in ("host", "port")}
        return {name: str(value) for name, value in found.items() if value}


def _is_strange(sqlstate: str) -> bool:
    """Tell whether the server lets nobody in for a reason of its own, such as a library that it doesn't find."""
    return kind_of(sqlstate) is Trouble.UNKNOWN or sqlstate == "58P01"


def _where(address: Address) -> str:
    host = address.get("host") or address.get("hostaddr")
    if not host:
        return ""
    return f" at {host}" + (f" port {address['port']}" if address.get("port") else "")


def _haste(pg: Any) -> float:
    """Give the seconds for the first try of an address: libpq's connect_timeout, if there is one."""
    text = str(pg.info.dsn_parameters.get("connect_timeout", ""))
    return max(2.0, float(text)) if text.isdigit() and text.isascii() and int(text[:9]) else FIRST_TRY_SECONDS


def _note_hung(address: Address) -> None:
    _hung[_key(address)] = time.monotonic() + HUNG_SECONDS


def _is_hung(address: Address) -> bool:
    return time.monotonic() < _hung.get(_key(address), 0.0)


def _key(address: Address) -> tuple[str, ...]:
    return address.get("host", ""), address.get("hostaddr", ""), address.get("port", "")


def _addresses(parameters: dict[str, str]) -> list[Address]:
    """Give all addresses that these parameters of libpq's mean, names looked up."""
    hosts, fixed, ports = (parameters.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    n = max(len(hosts), len(fixed))
    addresses = []
    for host, ip, port in zip(_stretched(hosts, n), _stretched(fixed, n), _stretched(ports, n), strict=True):
        basic = {"host": host, "port": port}
        if ip or not host or host.startswith(("/", "@")) or _is_ip(host):
            addresses.append(basic | ({"hostaddr": ip} if ip else {}))
            continue
        with suppress(OSError):
            for *_, place in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                addresses.append(basic | {"hostaddr": str(place[0])})
    return addresses


def _stretched(values: list[str], n: int) -> list[str]:
    return values * n if len(values) == 1 else values


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _speak(pg: Any, verbosity: int) -> None:
    """Choose how much libpq says: while we connect, the SQLSTATE too, which psycopg2 knows of queries only."""
    if _set_verbosity is not None:
        _set_verbosity(pg.pgconn_ptr, verbosity)


def _find_set_verbosity() -> Any:
    try:
        function = ctypes.PyDLL(psycopg2._psycopg.__file__).PQsetErrorVerbosity  # noqa: SLF001 (libpq is found by it)
    except (OSError, AttributeError):
        return None  # then the server's words have to do
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return function


_set_verbosity = _find_set_verbosity()
