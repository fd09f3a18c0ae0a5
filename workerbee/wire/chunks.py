"""A chunk: several calls of one function as one job, each with an outcome of its own, so that none harms another."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Literal

from workerbee import pickling
from workerbee.errors import EncodingError, JobFailedError
from workerbee.memory import LEAST
from workerbee.wire import codec
from workerbee.wire.failures import decode_error, encode_error, tamed

#: How a call has ended: its value, or the pickle of that, or an error record.
CallOutcome = tuple[Literal["value", "pickle", "error"], Any]


class Chunk:
    """A function of some calls, whose result is their `outcomes`, packed."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.__wrapped__ = fn  # so that the chunk's identity is that of the function

    def __call__(self, calls: tuple[tuple[Any, ...], ...]) -> list[CallOutcome] | bytes:
        """Raises JobFailedError if a call does: the chunk is tried again."""
        return _packed([self._outcome(args) for args in calls])

    def _outcome(self, args: tuple[Any, ...]) -> CallOutcome:
        try:
            return "value", self.__wrapped__(*args)
        except JobFailedError:
            raise
        except BaseException as error:  # noqa: BLE001 (it belongs to this call alone)
            return "error", encode_error(error)


def _packed(outcomes: list[CallOutcome]) -> list[CallOutcome] | bytes:
    """Give outcomes as one pickle if that can be loaded, else each value in its own; with large arrays as they are."""
    values = [value for _, value in outcomes]
    if codec.is_simple(values, LEAST):  # none of which would be put into a file
        return codec.dumps(outcomes, protocol=5)  # nothing looks through it once more
    if codec.is_simple(values):
        return outcomes
    try:
        data = pickling.dumps(outcomes)
        pickle.loads(data)  # noqa: S301 (made just above)
    except BaseException:  # noqa: BLE001 (pickling runs user code)
        return [_alone(*outcome) for outcome in outcomes]
    return data


def _alone(kind: str, value: Any) -> CallOutcome:
    if kind == "error" or codec.is_simple(value):
        return kind, value  # type: ignore[return-value]
    try:
        return "pickle", pickling.dumps(value)
    except BaseException as error:  # noqa: BLE001 (the user's)
        return "error", encode_error(EncodingError("the result", error))


def unpacked(result: list[CallOutcome] | bytes) -> list[CallOutcome]:
    """Load the outcomes in a chunk's result. Raises an Exception if they can't be loaded here."""
    return tamed(lambda: pickle.loads(result)) if isinstance(result, bytes) else result  # noqa: S301


def value_of(kind: str, data: Any) -> Any:
    """Give what a call has returned. Raises what it has raised."""
    if kind == "error":
        raise decode_error(data, trusted=True)
    return tamed(lambda: pickle.loads(data)) if kind == "pickle" else data  # noqa: S301 (of a signed result)
