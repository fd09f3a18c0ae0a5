"""What a function's record says beside its code. No I/O here.

A record's ``codec`` is ``import`` or ``pickle``, and after it what else is so, in the order ``version``, ``counts``,
``calls``, each at most once and in hexadecimal:

- ``;version=…``: what its user calls this version of it;
- ``;counts=…``: it counts as the function with this identity, because its user has said so (`adoption`);
- ``;calls=…``: it stands in for the function with this digest, and runs calls that are signed for that one.

All of it is part of the record's digest, and signed with it. Only in its row ``;parts=`` may follow, where the code is
too large for the row (`store.parts`).
"""

from __future__ import annotations

from workerbee.wire import codec

#: The codec of a row that holds no code: functions with the identity in its body count as those with the row's.
ADOPTED = "adopted"


def kind(record_codec: str) -> str:
    """Tell how the code itself is stored: ``import`` or ``pickle``."""
    return record_codec.partition(";")[0]


def _fact(record_codec: str, name: str) -> bytes | None:
    facts = dict(fact.split("=", 1) for fact in record_codec.split(";")[1:])
    return bytes.fromhex(facts[name]) if name in facts else None


def label(record_codec: str) -> str | None:
    """Find the name that its user gives this version; None if it is known by its code alone."""
    version = _fact(record_codec, "version")
    return None if version is None else version.decode("utf-8", "surrogatepass")


def calls(record_codec: str) -> bytes | None:
    """The digest of the function that it stands in for; None: it runs calls of its own."""
    return _fact(record_codec, "calls")


def is_by_word(record_codec: str) -> bool:
    """Tell whether its user's word, and not its code, makes it the same function as others with its identity."""
    return ";version=" in record_codec or ";counts=" in record_codec


def labelled(record_codec: str, version: str) -> str:
    """The same, as this version."""
    return f"{record_codec};version={version.encode('utf-8', 'surrogatepass').hex()}"


def counting(record_codec: str, identity: bytes) -> str:
    """The same, counting as the function with this identity."""
    return f"{record_codec};counts={identity.hex()}"


def standing_in(record_codec: str, digest: bytes) -> str:
    """The same, for calls of the function with this digest."""
    return f"{record_codec};calls={digest.hex()}"


def adoption(identity: bytes) -> bytes:
    """The digest of the row that says what functions with this identity count as."""
    return codec.digest(b"adopted", identity)
