"""Stored jobs as flat rows, input and output side by side.

Most values are JSON: those of a page are parsed together, and their signatures are compared together. Other values are
decoded one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

from workerbee.keeping import record_loss
from workerbee.store import ClientStore, Result
from workerbee.wire import codec, ends
from workerbee.wire.failures import tamed
from workerbee.wire.signing import Signer

#: Stands for a value that is decoded by itself.
_APART = object()


def flat_rows(
    page: Sequence[Result],
    store: ClientStore,
    signer: Signer | None,
    told: Callable[[Result], Mapping[str, Any]] | None = None,
    *,
    with_failed: bool = False,
) -> Iterator[dict[str, Any]]:
    """Make a row for each of these ended jobs; the columns ``told`` come before its input.

    A job whose large result turns out to be lost has failed.
    """
    for result, given, value in zip(page, _inputs(page), _outputs(page, signer), strict=True):
        row = [_flat(result, given, value, store, signer, {} if told is None else told(result))]
        if with_failed or row[0]["status"] != "failed":
            yield row.pop()  # no reference to the row is kept here


def _flat(
    result: Result, given: Any, value: Any, store: ClientStore, signer: Signer | None, told: Mapping[str, Any]
) -> dict[Any, Any]:
    row = {"job_id": result.job, "status": result.status, **told}
    given = _decoded_input(*store.call_of(result)) if given is _APART else given
    if value is _APART:
        output, is_lost = _output(store, result, signer)
        return _joined_anyhow(row | {"status": "failed"} if is_lost else row, given, output)
    return _joined(row, given, _named(value))


def _inputs(page: Sequence[Result]) -> Sequence[Any]:
    """Give the input of each that is a dict in JSON."""
    texts = [result.input if result.codec in _JSON_CALLS else "0" for result in page]
    return [value if type(value) is dict else _APART for value in _parsed(texts)]


_JSON_CALLS = frozenset({codec.JSON, codec.JSON_CALL})


def _outputs(page: Sequence[Result], signer: Signer | None) -> Sequence[Any]:
    """Give the value of each that is JSON, if all signatures hold that there are."""
    plain = [result.end_codec == codec.JSON and result.status == "completed" for result in page]
    if signer is not None and not _hold(list(compress(page, plain)), signer):
        return [_APART] * len(page)
    texts = [result.output if is_plain else "0" for result, is_plain in zip(page, plain, strict=True)]
    return [value if is_plain else _APART for value, is_plain in zip(_parsed(texts), plain, strict=True)]


def _hold(results: Sequence[Result], signer: Signer) -> bool:
    macs = [result.mac for result in results if result.mac is not None]
    values = [(result.job, result.run, str(result.output).encode()) for result in results if result.mac is not None]
    return signer.verify_all(macs, "result", codec.JSON, values)


def _parsed(texts: Sequence[str | None]) -> list[Any]:
    """Give the values of JSON texts that PostgreSQL has found to be whole; none of them if one is beyond Python."""
    try:
        values = json.loads(f"[{','.join(map(str, texts))}]")
    except (ValueError, RecursionError):
        return [_APART] * len(texts)
    return values if len(values) == len(texts) else [_APART] * len(texts)


def _decoded_input(name: str, data: bytes) -> dict[Any, Any]:
    """Give the input by its keys; what isn't a dict, or can't be parsed, as it is. A pickle stays one."""
    if name not in _JSON_CALLS:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = data.decode()
    return value if isinstance(value, dict) else {"input": value}


def _output(store: ClientStore, result: Result, signer: Signer | None) -> tuple[dict[Any, Any], bool]:
    """Give the output by its keys, or the error; and whether that is a large value that is lost."""
    end = store.end_of(result)
    value, error = ends.decode(end, signer)
    is_lost = error is not None and signer is not None and record_loss(store, signer, end, error)
    return {"error": error} if result.status != "completed" or error is not None else _named(value), is_lost


def _named(value: Any) -> dict[Any, Any]:
    return value if issubclass(type(value), dict) else {"result": value}


def _joined(row: dict[Any, Any], given: dict[Any, Any], output: dict[Any, Any]) -> dict[Any, Any]:
    """Make the row with the input's and the output's items, each under a key that it doesn't have yet."""
    n = len(row) + len(given) + len(output)
    together = {**row, **given, **output}
    if len(together) == n:
        return together
    _put(row, given, "input_")
    _put(row, output, "output_")
    return row


def _joined_anyhow(row: dict[Any, Any], given: dict[Any, Any], output: dict[Any, Any]) -> dict[Any, Any]:
    """Do the same for an output whose keys may be of a user's classes, and raise or exit when they are compared."""
    try:
        return tamed(lambda: _joined(dict(row), given, output))
    except Exception:  # noqa: BLE001 (the user's)
        return _joined(row, given, {"result": output})


def _put(row: dict[Any, Any], items: dict[Any, Any], prefix: str) -> None:
    for key, value in items.items():
        free = key
        while free in row:
            free = f"{prefix}{free}"
        row[free] = value
