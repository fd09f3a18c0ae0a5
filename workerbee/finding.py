"""Finding jobs by their input: a whole call by the index of identities, a part of an input by reading inputs.

An index knows only whole calls. For a part of an input the newest jobs are read, for a limited time, and the answer
says how far that went.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from workerbee.reading import JobsetReader
from workerbee.wire import codec, plain

#: Jobs in one look; functions whose calls are looked up, the newest ones.
PAGE, FUNCTIONS = 5000, 1000
#: Seconds of reading, by default.
LOOK_SECONDS = 2.0
#: Beyond the id of any job.
LAST = 2**63 - 1


class Found(NamedTuple):
    """The ids of the jobs that were found, the newest first, and how far the reading went.

    ``is_same``: these are equal calls, found by the index. ``before`` is the id where the next search goes on, None if
    all inputs were read. ``unread`` counts the jobs whose input is a pickle, or too large.
    """

    ids: list[int]
    is_same: bool
    looked_at: int = 0
    before: int | None = None
    unread: int = 0


class Inputs(NamedTuple):
    """Some jobs with their inputs (None: it can't be read), and whether there are no more."""

    jobs: list[tuple[int, str | None]]
    is_last: bool


def parsed(text: str) -> Any:
    """Read what to find. Raises ValueError for what is no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} isn't in JSON")


def find(
    reader: JobsetReader,
    value: Any,
    *,
    n: int = 50,
    before: int = LAST,
    seconds: float = LOOK_SECONDS,
    at_a_time: int = PAGE,
) -> Found:
    """Find the jobs whose input is ``value``; if there is none, those whose input contains it.

    For a part inputs are read ``at_a_time``, and after some ``seconds`` no more.

    As in PostgreSQL an object contains one with some of its items, and a list one with some of its elements. Of a call
    with several arguments, ``value`` may be in any of them.
    """
    same = [] if before < LAST else _same(reader, value, n)
    return (
        Found(same, is_same=True) if same else _containing(_pages(reader, before, at_a_time), value, n, before, seconds)
    )


def _same(reader: JobsetReader, value: Any, n: int) -> list[int]:
    """Find the jobs that are exactly this call, of any function, or whose input has this ``id``."""
    calls = [codec.encode_call((value,), {}).identity]
    if isinstance(value, dict) and value.keys() == {"args", "kwargs"}:
        args, kwargs = value["args"], value["kwargs"]
        if isinstance(args, list) and isinstance(kwargs, dict):
            calls.append(codec.encode_call(tuple(args), kwargs).identity)
    functions = {function.identity for function in reader.functions()[-FUNCTIONS:]}
    digests = [codec.digest(b"call", function, call) for function in functions for call in calls if call is not None]
    text = plain.to_sorted_json(value)
    keys = []
    if isinstance(value, dict):
        digests.append(codec.digest(b"input", text.encode()))
        keys = [codec.digest(b"id", plain.to_sorted_json(value["id"]).encode())] if value.keys() == {"id"} else []
    return reader.same_jobs(digests, keys, n)


def _containing(pages: Iterator[Inputs], value: Any, n: int, before: int, seconds: float) -> Found:
    ids: list[int] = []
    looked_at = unread = 0
    end = time.monotonic() + seconds
    for page, is_last in pages:
        for job, text in page:
            looked_at, unread, before = looked_at + 1, unread + (text is None), job
            if text is not None and _holds(text, value):
                ids.append(job)
                if len(ids) == n:
                    return Found(ids, False, looked_at, before, unread)  # noqa: FBT003 (its name is above)
        if time.monotonic() > end and not is_last:
            return Found(ids, False, looked_at, before, unread)  # noqa: FBT003
    return Found(ids, False, looked_at, None, unread)  # noqa: FBT003


def _pages(reader: JobsetReader, before: int, size: int) -> Iterator[Inputs]:
    while jobs := reader.inputs_before(before, size):
        yield Inputs(jobs, is_last=len(jobs) < size)
        before = jobs[-1][0]


def _holds(text: str, value: Any) -> bool:
    """True if the input in this text contains the value, itself or in one of its arguments."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):  # Python can't read it
        return False
    if contains(given, value):
        return True
    if not isinstance(given, dict) or given.keys() != {"args", "kwargs"} or not isinstance(given["args"], list):
        return False
    return contains(given["kwargs"], value) or any(contains(argument, value) for argument in given["args"])


def contains(whole: Any, part: Any) -> bool:
    """True if JSON ``part`` is in ``whole``, as PostgreSQL's ``@>`` has it; 1 and true are different."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(contains(item, one) for item in whole) for one in part)
    return not isinstance(whole, (dict, list)) and whole == part and isinstance(whole, bool) == isinstance(part, bool)
