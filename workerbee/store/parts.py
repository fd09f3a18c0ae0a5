"""Values too large for one statement travel in parts, ahead of the row that refers to them.

So no statement takes longer than a lease on a slow link. The row of a job or an outcome then has the codec ``parts``,
and as its payload a reference: which parts, and what codec the whole has. The row of a function has ``;parts=`` and
how many there are after its codec, and as its body what they are known by, a digest of what is in them: so the same
body is stored once, and storing it again goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import cast
from uuid import UUID, uuid4

from workerbee.store.connection import Row
from workerbee.store.ration import Ration
from workerbee.wire.job import LARGE_BYTES, READABLE, TWINNED

#: Bytes of one part: what a link of 125 kB/s carries within a lease.
PART_BYTES = 250_000
#: Parts in one statement, as far as it takes no longer than this (seconds): a part of the lease.
AT_ONCE, HASTE_SECONDS = 16, 0.5
PARTS = "parts"
#: The functions' parts belong to no job.
NO_JOB = 0
_OF_FUNCTION = f";{PARTS}="


def put(run: Callable[..., list[Row]], job: int, run_number: int, codec: str, data: bytes) -> tuple[str, bytes]:
    """Store ``data`` if it is large; the codec and the bytes that go into the row."""
    if len(data) <= LARGE_BYTES:
        return codec, data
    token = uuid4()
    n = _put_all(run, job, run_number, token, data)
    return PARTS, json.dumps({"token": str(token), "n": n, "codec": codec}).encode()


def put_function(run: Callable[..., list[Row]], codec: str, body: bytes) -> tuple[str, bytes]:
    """Store a function's body if it is large; the codec and the bytes that go into the row."""
    if len(body) <= LARGE_BYTES:
        return codec, body
    token = hashlib.blake2b(body, digest_size=16).digest()
    return f"{codec}{_OF_FUNCTION}{_put_all(run, NO_JOB, 0, UUID(bytes=token), body)}", token


def _put_all(run: Callable[..., list[Row]], job: int, run_number: int, token: UUID, data: bytes) -> int:
    """Store the parts; how many they were."""
    view = memoryview(data)
    ration = Ration(AT_ONCE, HASTE_SECONDS)
    n = 0
    while n * PART_BYTES < len(data):
        with ration.use() as moved:
            some = view[n * PART_BYTES : n * PART_BYTES + ration.bytes // PART_BYTES * PART_BYTES]
            run("put_parts", job=job, run=run_number, token=str(token), first=n + 1, size=PART_BYTES, data=some)
            moved.rows, moved.bytes = -(-len(some) // PART_BYTES), len(some)
        n += moved.rows
    return n


def written(run: Callable[..., list[Row]], job: int, run_number: int, codec: str, data: bytes) -> tuple[str, str, str]:
    """The codec of a value's row, its readable text and its other bytes in hexadecimal; one may be empty."""
    if len(data) > LARGE_BYTES:
        codec, data = put(run, job, run_number, codec, data)
    if codec == TWINNED:
        text, _, rest = data.partition(b"\0")
        return codec, text.decode(), rest.hex()
    return (codec, data.decode(), "") if codec in READABLE else (codec, "", data.hex())


def whole(codec: str | None, text: str | None, payload: bytes | memoryview | None) -> bytes:
    """The value that a row holds, as it was `written`."""
    if codec == TWINNED:
        return (text or "").encode() + b"\0" + bytes(payload or b"")
    return text.encode() if text is not None else bytes(payload or b"")


def get(run: Callable[..., list[Row]], job: int, run_number: int, reference: bytes) -> tuple[str, bytes]:
    """The codec and the bytes of the whole that ``reference`` names.

    A reference that names nothing comes back as it is: whoever verifies its signature finds that out.
    """
    try:
        facts = json.loads(reference)
        return str(facts["codec"]), _get_all(run, job, run_number, UUID(facts["token"]), facts["n"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return PARTS, reference


def get_function(run: Callable[..., list[Row]], codec: str, body: bytes) -> tuple[str, bytes]:
    """The codec and the body of the function whose row has these; as they are where its parts aren't there."""
    own, _, n = codec.partition(_OF_FUNCTION)
    if not n:
        return codec, body
    try:
        return own, bytes(_get_all(run, NO_JOB, 0, UUID(bytes=body), int(n)))
    except ValueError:
        return codec, body


def _get_all(run: Callable[..., list[Row]], job: int, run_number: int, token: UUID, n: int) -> bytes:
    """The parts together. Raises ValueError if one isn't there."""
    whole = bytearray()
    last = 0
    ration = Ration(AT_ONCE, HASTE_SECONDS)
    while last < n:
        with ration.use() as moved:
            first, last = last + 1, min(n, last + ration.bytes // PART_BYTES)
            rows = run("get_parts", job=job, run=run_number, token=str(token), first=first, last=last)
            moved.rows, moved.bytes = len(rows), sum(len(data) for (data,) in rows)
        if len(rows) < last - first + 1:
            raise ValueError("a part isn't there")
        for (data,) in rows:
            whole += data
    return cast("bytes", whole)  # a copy would take as much again
