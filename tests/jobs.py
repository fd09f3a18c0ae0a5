"""Jobs that real bees run in tests; a module of its own, which a runner imports in no time."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from workerbee import JobFailedError


def double(x: Any) -> Any:
    return 2 * x


def note(record: str, key: object) -> object:
    """Append a line with the key and the pid of the bee; the key."""
    fd = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{key} {os.getppid()}\n".encode())
    os.close(fd)
    return key


def noted(record: Path) -> list[tuple[str, int]]:
    """(key, pid of the bee) of each execution so far."""
    lines = record.read_text().splitlines() if record.exists() else []
    return [(key, int(bee)) for key, bee in (line.rsplit(" ", 1) for line in lines)]


def slowly(record: str, key: object, seconds: float) -> object:
    note(record, key)
    time.sleep(seconds)
    return key


def copied(record: str, key: object, ballast: str) -> tuple[object, str]:
    note(record, key)
    return key, ballast


def gated(record: str, key: object, gate: str) -> object:
    """Wait for the file ``gate`` to be there."""
    note(record, key)
    while not Path(gate).exists():
        time.sleep(0.01)
    return key


def gated_and_noted(record: str, key: object, gate: str) -> object:
    """The same, with a note before and one at its end."""
    return note(record, gated(record, key, gate))


def gated_failure(record: str, key: object, gate: str) -> None:
    gated(record, key, gate)
    raise JobFailedError("too late to count")
