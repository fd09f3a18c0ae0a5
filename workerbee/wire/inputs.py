"""Inputs and results of a `JobSet`: anything that JSON can hold; an error says which part it can't."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from workerbee.errors import InputDataError, PayloadTooLargeError
from workerbee.wire import codec, plain

#: Digits of an integer; Python refuses to print much longer ones.
MOST_DIGITS = 3900


def check_input(input_data: object) -> str:
    """JSON text of a job's dict, as ``json.dumps(allow_nan=False)`` makes it.

    Raises InputDataError with the path, or PayloadTooLargeError.
    """
    if not isinstance(input_data, dict):
        raise InputDataError("input_data", "input_data", f"is a {type(input_data).__name__}, and must be a dict")
    return _checked(input_data, "input_data", codec.MAX_BYTES)


def check_output(value: object, most: int = codec.MAX_BYTES) -> str:
    """JSON text of a job's result. Raises InputDataError with the path, or PayloadTooLargeError."""
    return _checked(value, "the result", most)


def id_identity(text: str) -> bytes | None:
    """Canonical bytes of ``input_data['id']``, or None without one."""
    data = json.loads(text)
    return plain.to_sorted_json(data["id"]).encode() if "id" in data else None


def _checked(value: object, what: str, most: int) -> str:
    seen: set[int] = set()
    if plain.is_plain(value, seen=seen):
        return plain.json_of(value, what, most, seen).decode()
    _find_fault(value, what, what, plain.DEPTH, set())
    try:
        text = plain.to_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputDataError(what, what, f"can't be encoded: {error}") from error
    if len(text) > most:
        raise PayloadTooLargeError(what, len(text), most)
    return text


def _find_fault(value: object, what: str, path: str, depth: int, seen: set[int]) -> None:
    """Raise for the first thing that JSON in PostgreSQL can't hold."""
    if isinstance(value, str):
        if not plain.is_plain_text(value):
            raise InputDataError(what, path, "has a NUL character or a lone surrogate")
    elif isinstance(value, float):
        if not isfinite(value):
            raise InputDataError(what, path, f"is {value!r}, which JSON has no word for; use None or a string")
    elif isinstance(value, int):
        if not -(10**MOST_DIGITS) < value < 10**MOST_DIGITS:
            raise InputDataError(what, path, f"is an integer of more than {MOST_DIGITS} digits; use a string")
    elif isinstance(value, (dict, list, tuple)):
        if id(value) in seen:
            return  # it is met for the second time, which JSON allows
        if depth == 0:
            raise InputDataError(what, path[:100] + "…", f"is nested deeper than {plain.DEPTH} levels")
        if isinstance(value, dict):
            _check_keys(value, what, path)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            _find_fault(item, what, f"{path}[{key!r}]", depth - 1, seen)
        seen.add(id(value))
    elif value is not None:
        raise InputDataError(
            what, path, f"is a {type(value).__module__}.{type(value).__qualname__}, which JSON can't hold"
        )


def _check_keys(value: dict[Any, Any], what: str, path: str) -> None:
    for key in value:
        if key is not None and not isinstance(key, (str, int, float)):
            raise InputDataError(what, path, f"has the key {key!r}; JSON's keys are strings")
        if isinstance(key, str) and not plain.is_plain_text(key):
            raise InputDataError(what, path, f"has the key {key!r} with a NUL character or a lone surrogate")
        if isinstance(key, float) and not isfinite(key):
            raise InputDataError(what, path, f"has the key {key!r}")
    if not all(isinstance(k, str) for k in value):
        texts = [next(iter(json.loads(plain.to_json({k: 0})))) for k in value]
        if len(set(texts)) < len(texts):
            raise InputDataError(what, path, "has two keys that are the same string in JSON")
