"""What the benchmarks' jobs do; importable, so that every peer can find it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

#: Numbers in an array: 8 MB.
ITEMS = 1_000_000
#: In a bee's environment: how many times slower than the others it sleeps.
SLOWDOWN = "WORKERBEE_BENCHMARK_SLOWDOWN"


def noop(data: dict[str, Any]) -> None:
    """Nothing, of a dict: all that is measured is the way there and back."""


def identity(value: Any) -> Any:
    return value


def filled(value: float) -> Any:
    """An array of `ITEMS` numbers."""
    import numpy as np  # noqa: PLC0415 (few peers need it)

    return np.full(ITEMS, value)


def last(array: Any) -> float:
    return float(array[-1])


def sleep(data: dict[str, Any]) -> None:
    time.sleep(data["seconds"])


def noted_sleep(data: dict[str, Any]) -> None:
    """Sleep, as long as this bee's machine would take, with a line in a file for each run that began."""
    with Path(data["runs"]).open("a") as runs:
        runs.write(f"{data['i']}\n")
    time.sleep(data["seconds"] * float(os.environ.get(SLOWDOWN, "1")))


def outlived(data: dict[str, Any]) -> float:
    """In its first run, say whose child it is and stay until killed; later, the time (s) at which it was run again."""
    now = time.monotonic()
    try:
        with Path(data["path"]).open("x") as first:
            first.write(f"{os.getppid()}\n")
    except FileExistsError:
        return now
    time.sleep(60)
    return float("inf")
