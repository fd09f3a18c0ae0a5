"""Failures by their cause: what is the same error in a thousand jobs is one row, most frequent first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from workerbee.store import FailureRow

#: Failures that are read at the most; who groups more says that there were more.
MOST = 20_000

#: What differs between two messages of one cause: addresses, UUIDs and numbers.
_VARYING = re.compile(
    r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
)
_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE)


class Cause(NamedTuple):
    """What failures have in common: the error's type, its message with ``#`` for what varies, its innermost frame."""

    type: str
    message: str
    frame: str


class Group(NamedTuple):
    """The failures of one cause. ``jobs`` are their ids, newest first; times are seconds since the epoch."""

    cause: Cause
    jobs: list[int]
    functions: list[str]
    first_at: float
    last_at: float


def cause_of(failure: FailureRow) -> Cause:
    """The cause of one failure."""
    frames = list(_FRAME.finditer(failure.traceback))
    frame = f"{PurePath(frames[-1]['file']).name}:{frames[-1]['line']} in {frames[-1]['function']}" if frames else ""
    first_line = failure.message.strip().partition("\n")[0]
    return Cause(failure.type, _VARYING.sub("#", first_line), frame)


def grouped(failures: Iterable[FailureRow]) -> list[Group]:
    """Failures by cause, the most frequent cause first; equally frequent ones by the newest job."""
    groups: dict[Cause, list[FailureRow]] = {}
    for failure in failures:
        groups.setdefault(cause_of(failure), []).append(failure)
    return sorted(
        (
            Group(
                cause,
                [failure.job for failure in alike],
                sorted({failure.function for failure in alike}),
                min(failure.ended_at for failure in alike),
                max(failure.ended_at for failure in alike),
            )
            for cause, alike in groups.items()
        ),
        key=lambda group: (-len(group.jobs), -max(group.jobs)),
    )
