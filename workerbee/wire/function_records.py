"""What a function's record says beside its code: the words in its codec. No I/O here.

A record's ``codec`` is ``import`` or ``pickle``. After it may follow ``values``, ``version``, ``large``, ``counts`` and
``calls``, in this order, each at most once and in hexadecimal:

- ``;values=…``: which arrays were taken out of it (`wire.values`);
- ``;version=…``: what its user calls this version of it;
- ``;large=…``: where its calls' large results are stored (a `blobs.Depot`);
- ``;counts=…``: it counts as the function with this identity, because its user has said so (`adoption`);
- ``;calls=…``: it stands in for the function with this digest, and runs calls that are signed for that one.

All of it is part of the record's digest, and signed with it. Only in its row ``;parts=`` may follow, where the code is
too large for the row (`store.parts`).
"""

from __future__ import annotations

from workerbee.blobs import Depot
from workerbee.wire import codec

#: The codec of a row that holds no code: functions with the identity in its body count as those with the row's.
ADOPTED = "adopted"
#: The codec of a row that holds no code but the URL of a place of large values: who drops the jobset deletes them.
PLACE = "place"


def kind(record_codec: str) -> str:
    """Tell how the code itself is stored: ``import`` or ``pickle``."""
    return record_codec.partition(";")[0]


def _fact(record_codec: str, name: str) -> bytes | None:
    words = dict(word.split("=", 1) for word in record_codec.split(";")[1:])
    return bytes.fromhex(words[name]) if name in words else None


def label(record_codec: str) -> str | None:
    """Find the name that the user gave this version; None if only its code tells it from others."""
    version = _fact(record_codec, "version")
    return None if version is None else version.decode("utf-8", "surrogatepass")


def calls(record_codec: str) -> bytes | None:
    """Find the digest of the function whose calls the record runs; None if it runs its own."""
    return _fact(record_codec, "calls")


def is_by_word(record_codec: str) -> bool:
    """Tell whether the user has said which function this is, by a version or by adopting results."""
    return ";version=" in record_codec or ";counts=" in record_codec


def place(record_codec: str) -> Depot | None:
    """Find where large results are stored; None if in the database."""
    fact = _fact(record_codec, "large")
    return None if fact is None else Depot.parse(fact.decode())


def storing(record_codec: str, where: Depot) -> str:
    """Add to a codec where large results are stored."""
    return f"{record_codec};large={str(where).encode().hex()}"


def labelled(record_codec: str, version: str) -> str:
    """Add to a codec the name that the user gives this version."""
    return f"{record_codec};version={version.encode('utf-8', 'surrogatepass').hex()}"


def counting(record_codec: str, identity: bytes) -> str:
    """Add to a codec that its function counts as the one with this identity."""
    return f"{record_codec};counts={identity.hex()}"


def standing_in(record_codec: str, digest: bytes) -> str:
    """Add to a codec that its function runs the calls that are signed for the one with this digest."""
    return f"{record_codec};calls={digest.hex()}"


def adoption(identity: bytes) -> bytes:
    """Give the digest of the row that says as which function those with this identity count."""
    return codec.digest(b"adopted", identity)
