"""Values that are too large for one statement are stored in parts, before the row that refers to them.

So no statement takes longer than a lease on a slow link. The row of a job or an outcome then has the codec ``parts``,
and as its payload a reference: which parts they are, and the codec of the whole value. The row of a function has
``;parts=`` and the number of parts after its codec, and as its body a digest by which the parts are found: so equal
bodies are stored once, and an interrupted storing goes on where it was. So are arrays that calls share (`wire.values`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast
from uuid import UUID, uuid4

from psycopg2 import errors

from workerbee.store.connection import Row
from workerbee.store.queries import Queries, array
from workerbee.store.ration import Ration
from workerbee.wire.job import LARGE_BYTES, READABLE, TWINNED
from workerbee.wire.values import TakenArray, Value

#: Bytes of one part: what a link of 125 kB/s carries within a lease.
PART_BYTES = 250_000
#: Parts in one statement, as far as it takes no longer than this (seconds), a part of the lease; and bytes that are
#: enough for one that nothing delays.
AT_ONCE, HASTE_SECONDS, ENOUGH_BYTES = 16, 0.5, 2 * PART_BYTES
#: Parts in one answer: who reads has it as a whole, and more than once.
READ_AT_ONCE = 4
PARTS = "parts"
#: The parts of functions, and of what calls share, belong to no job.
NO_JOB = 0
_OF_FUNCTION = f";{PARTS}="


class Parts:
    """The parts of a jobset's values. ``alive`` is called before each statement that moves some."""

    def __init__(self, queries: Queries, alive: Callable[[], None] = lambda: None) -> None:
        self._queries = queries
        self._alive = alive
        self._stored = Ration(AT_ONCE, HASTE_SECONDS, ENOUGH_BYTES)
        self._read = Ration(READ_AT_ONCE, HASTE_SECONDS)

    # Storing

    def put(self, job: int, run: int, codec: str, data: bytes) -> tuple[str, bytes]:
        """Store ``data`` in parts if it is large. Returns the codec and the bytes of the row."""
        if len(data) <= LARGE_BYTES:
            return codec, data
        token = uuid4()
        n = self._put_all(job, run, token, data)
        return PARTS, json.dumps({"token": str(token), "n": n, "codec": codec}).encode()

    def put_function(self, codec: str, body: bytes) -> tuple[str, bytes]:
        """Store a function's body in parts if it is large. Returns the codec and the bytes of the row."""
        if len(body) <= LARGE_BYTES:
            return codec, body
        token = hashlib.blake2b(body, digest_size=16).digest()
        return f"{codec}{_OF_FUNCTION}{self._put_all(NO_JOB, 0, UUID(bytes=token), body)}", token

    def put_values(self, values: Iterable[Value]) -> None:
        """Store arrays that calls share, each of them once in a jobset."""
        new = {value.taken.token: value for value in values}
        if new:
            lasts = [-(-value.taken.size // PART_BYTES) for value in new.values()]
            there = self._queries.run("values_stored", {"tokens": array(new), "lasts": array(lasts)})
            for token in new.keys() - {UUID(token) for (token,) in there}:
                self._put_all(NO_JOB, 0, token, new[token].data)

    def written(self, job: int, run: int, codec: str, data: bytes) -> tuple[str, str, str]:
        """Give the codec of a value's row, its readable text, and its other bytes in hexadecimal; one may be empty."""
        if len(data) > LARGE_BYTES:
            codec, data = self.put(job, run, codec, data)
        if codec == TWINNED:
            text, _, rest = data.partition(b"\0")
            return codec, text.decode(), rest.hex()
        return (codec, data.decode(), "") if codec in READABLE else (codec, "", data.hex())

    def _carry(self, name: str, /, **params: Any) -> list[Row]:
        self._alive()
        return self._queries.carry(name, params)

    def _put_all(self, job: int, run: int, token: UUID, data: bytes | bytearray) -> int:
        """Store the parts. Returns how many they are."""
        view = memoryview(data)
        n = 0
        while n * PART_BYTES < len(data):
            some = view[n * PART_BYTES :][: self._stored.bytes // PART_BYTES * PART_BYTES]
            with self._stored.use() as moved:
                self._carry("put_parts", job=job, run=run, token=str(token), first=n + 1, size=PART_BYTES, data=some)
                moved.rows, moved.bytes = -(-len(some) // PART_BYTES), len(some)
            n += moved.rows
        return n

    def sweep_parts(self) -> None:
        """Delete what was begun to be stored long ago, and never came to its end, if this user may."""
        with suppress(errors.InsufficientPrivilege):
            self._queries.run("sweep_parts", {})

    # Reading

    def get(self, job: int, run: int, reference: bytes) -> tuple[str, bytes]:
        """Read the codec and the bytes of the value whose parts ``reference`` names.

        A reference to parts that aren't there is returned as it is: its signature then doesn't hold.
        """
        try:
            place = json.loads(reference)
            return str(place["codec"]), self._get_all(job, run, UUID(place["token"]), place["n"])
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return PARTS, reference

    def get_function(self, codec: str, body: bytes) -> tuple[str, bytes]:
        """Read the codec and the body of the function whose row has these; unchanged if its parts aren't there."""
        own, _, n = codec.partition(_OF_FUNCTION)
        if not n:
            return codec, body
        try:
            return own, bytes(self._get_all(NO_JOB, 0, UUID(bytes=body), int(n)))
        except ValueError:
            return codec, body

    def get_value(self, taken: TakenArray) -> Iterator[bytes]:
        """Read what calls share, in pieces. Raises ValueError if it isn't there."""
        return self._get_each(NO_JOB, 0, taken.token, -(-taken.size // PART_BYTES))

    def _get_all(self, job: int, run: int, token: UUID, n: int) -> bytes:
        """Join the parts. Raises ValueError if one isn't there."""
        whole = bytearray()
        for data in self._get_each(job, run, token, n):
            whole += data
        return cast("bytes", whole)  # a copy would take as much memory again

    def _get_each(self, job: int, run: int, token: UUID, n: int) -> Iterator[bytes]:
        last = 0
        while last < n:
            first, last = last + 1, min(n, last + min(READ_AT_ONCE, self._read.bytes // PART_BYTES))
            with self._read.use() as moved:
                rows = self._carry("get_parts", job=job, run=run, token=str(token), first=first, last=last)
                moved.rows, moved.bytes = len(rows), sum(len(data) for (data,) in rows)
            if len(rows) < last - first + 1:
                raise ValueError("a part isn't there")
            for (data,) in rows:
                yield data


def size(reference: bytes) -> int:
    """Estimate the bytes that a reference names; 0 if it names nothing."""
    try:
        return PART_BYTES * int(json.loads(reference)["n"])
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return 0


def whole(codec: str | None, text: str | None, payload: bytes | memoryview | None) -> bytes:
    """Read the value of a row that was `written`."""
    if codec == TWINNED:
        return (text or "").encode() + b"\0" + bytes(payload or b"")
    return text.encode() if text is not None else bytes(payload or b"")
