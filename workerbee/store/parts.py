"""Values too large for one statement travel in parts, ahead of the row that refers to them.

So no statement takes longer than a lease on a slow link. The row then has the codec ``parts``, and as
its payload a reference: which parts, and what codec the whole has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID, uuid4

from workerbee.job import READABLE, TWINNED
from workerbee.store.connection import Row

#: Bytes of a value that travels in parts, and of one part: what a link of 125 kB/s carries within a lease.
LARGE, PART = 1_000_000, 250_000
PARTS = "parts"


def put(run: Callable[..., list[Row]], job: int, run_number: int, codec: str, data: bytes) -> tuple[str, bytes]:
    """Store ``data`` if it is large; the codec and the bytes that go into the row."""
    if len(data) <= LARGE:
        return codec, data
    token = str(uuid4())
    view = memoryview(data)
    n = 0
    for n, start in enumerate(range(0, len(data), PART), 1):
        run("put_part", job=job, run=run_number, token=token, seq=n, data=view[start : start + PART])
    return PARTS, json.dumps({"token": token, "n": n, "codec": codec}).encode()


def written(run: Callable[..., list[Row]], job: int, run_number: int, codec: str, data: bytes) -> tuple[str, str, str]:
    """The codec of a value's row, its readable text and its other bytes in hexadecimal; one may be empty."""
    if len(data) > LARGE:
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
        whole = bytearray()
        for seq in range(1, facts["n"] + 1):
            [(data,)] = run("get_part", job=job, run=run_number, token=str(UUID(facts["token"])), seq=seq)
            whole += data
        return str(facts["codec"]), bytes(whole)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return PARTS, reference
