"""Causes: the same error in a thousand jobs is one cause, named by a short digest.

The digest is stored beside the error record, from which it is made. It isn't signed and only groups failures; nobody
trusts it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePath
from typing import NamedTuple

#: Bytes of a digest, and characters of a message and of a traceback that are looked at.
DIGEST_BYTES, MESSAGE_CHARS, TRACEBACK_CHARS = 8, 1000, 64_000

#: Parts in which two messages of one cause may differ: addresses, UUIDs and numbers.
_VARYING = re.compile(
    r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)


class Cause(NamedTuple):
    """The cause of failures: the error's type, its message with ``#`` for what varies, its innermost frame."""

    type: str
    message: str
    frame: str

    @property
    def digest(self) -> bytes:
        """A short name of the cause, the same wherever it is made."""
        text = "\0".join(self).encode("utf-8", "backslashreplace")
        return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def cause_of(kind: str, message: str, trace: str) -> Cause:
    """Give the cause of an error of this type, with this message and traceback."""
    frames = list(_FRAME.finditer(trace[-TRACEBACK_CHARS:]))
    frame = f"{PurePath(frames[-1]['file']).name}:{frames[-1]['line']} in {frames[-1]['function']}" if frames else ""
    first_line = message[:MESSAGE_CHARS].strip().partition("\n")[0]
    return Cause(kind, _VARYING.sub("#", first_line), frame)


def cause_of_record(record: str | bytes) -> Cause:
    """Give the cause that an error record tells; unsigned, it may be anything."""
    try:
        parsed = json.loads(record)
    except (ValueError, RecursionError):
        parsed = None
    told = parsed if isinstance(parsed, dict) else {}
    return cause_of(str(told.get("type")), str(told.get("message") or ""), str(told.get("traceback") or ""))
