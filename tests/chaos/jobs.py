"""The work done under chaos. Each execution writes to a file that outlives it what it does and has done."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from typing import Any

import numpy as np

from tests.poison import say
from workerbee import JobFailedError

#: The file, and the folder of marks that say which jobs have had their misfortune.
RECORD, MARKS = "CHAOS_RECORD", "CHAOS_MARKS"
#: Bytes of the largest values; without it they are small.
LARGEST = "CHAOS_LARGEST"
#: The folder in which large values are files; without it they are in the database.
FILES = "CHAOS_FILES"
#: Out of this many keys each has one kind of trouble; the others are plain.
TROUBLES = {3: "slow", 5: "garbling", 7: "flaky", 11: "error", 13: "big", 17: "deadly", 19: "slow"}
CYCLE = 20
#: Of these keys the waiting calls are cancelled and submitted again; of these all, by two clients.
WITHDRAWN, KILLED = 9, 15


def kind_of(key: int) -> str:
    """What is special about this job."""
    return TROUBLES.get(key % CYCLE, "plain")


def may_be_cancelled(key: int) -> bool:
    """Whether some of this key's runs end as cancelled: those calls are in JSON, and one job."""
    return key % CYCLE in (WITHDRAWN, KILLED) and key % 3 != 2


def value_of(key: int) -> str:
    """What the job returns beside its key, as anybody can work out."""
    return hashlib.sha256(str(key).encode()).hexdigest()


def size_of(key: int) -> int:
    """How large the call and the result of this key are: from 1 KB on, all magnitudes alike; 0 without such values."""
    largest = int(os.environ.get(LARGEST, "0"))
    return int(1000 * (largest / 1000) ** random.Random(key).random()) if largest else 0


def array_of(key: int) -> np.ndarray[Any, Any]:
    """What the call brings along; every other one the same."""
    return np.full(size_of(key if key % 2 else 0) // 8, float(key if key % 2 else 0))


def result_of(key: int) -> dict[str, Any]:
    """The whole result."""
    result: dict[str, Any] = {"key": key, "value": value_of(key)}
    if kind_of(key) == "big" and key % (CYCLE * 10) == 13:
        result["padding"] = "x" * 1_500_000  # such a value travels in parts
    if size := size_of(key):
        result["large"] = chr(97 + key % 26) * size
    return result


def execute(key: int) -> dict[str, Any]:
    """The job: as deterministic as jobs are meant to be, but for misfortunes that strike it once."""
    note("begin", key)
    kind = kind_of(key)
    if kind == "slow":
        time.sleep(0.05 + key % 7 * 0.05)
    elif kind == "flaky" and first_time(key):
        raise JobFailedError(f"{key} fails once")
    elif kind == "garbling" and key % (CYCLE * 5) == 5 and first_time(key):
        say(b"(\xff\xff\xff\x7f")  # in its runner's place: what would take gigabytes
        time.sleep(60)
    elif kind == "deadly" and key % (CYCLE * 5) == 17 and first_time(key):
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "error":
        raise ValueError(key)
    result = result_of(key)
    note("end", key)
    return result


def execute_tuple(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The same for a call that isn't JSON: each submission of it is a job of its own. It may bring an array along."""
    key, *arrays = arguments
    if not all(np.array_equal(array, array_of(key)) for array in arrays):
        raise RuntimeError(f"the array of {key} has changed")
    return execute(key)


def execute_dict(input_data: dict[str, Any]) -> dict[str, Any]:
    """The same for jobs that were added without a function."""
    return execute(input_data["key"])


def note(what: str, key: int) -> None:
    """Append one line, and have it on the disk before anything else happens."""
    fd = os.open(os.environ[RECORD], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{what} {key} {os.getpid()}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def first_time(key: int) -> bool:
    """True once for each key, whichever process asks."""
    try:
        os.close(os.open(os.path.join(os.environ[MARKS], str(key)), os.O_CREAT | os.O_EXCL))  # noqa: PTH118
    except FileExistsError:
        return False
    return True
