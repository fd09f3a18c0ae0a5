"""The only caller of user code: every end is a value."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from workerbee import JobFailedError, catch_all_exceptions
from workerbee.perform import perform
from workerbee.wire.job import EndKind


def test_a_value_is_a_completion() -> None:
    """The value comes back as it is, with the seconds it took."""
    value = object()
    end = perform(lambda a, *, b: (a, b), (value,), {"b": 2})
    assert (end.kind, end.value, end.error) == ("completed", (value, 2), None)
    assert end.duration >= 0


class MyFailedError(JobFailedError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (JobFailedError("x"), EndKind.FAILED),
        (MyFailedError("x"), EndKind.FAILED),
        (ValueError("x"), EndKind.ERROR),
        (KeyboardInterrupt(), EndKind.ERROR),
        (SystemExit(1), EndKind.ERROR),
        (GeneratorExit(), EndKind.ERROR),
        (StopIteration(), EndKind.ERROR),
        (MemoryError(), EndKind.ERROR),
    ],
    ids=lambda e: type(e).__name__ if isinstance(e, BaseException) else e,
)
def test_an_exception_is_an_end_too(error: BaseException, kind: EndKind) -> None:
    """JobFailedError and what derives from it asks for another attempt; everything else is an error."""

    def fails() -> None:
        raise error

    end = perform(fails, (), {})
    assert end.kind is kind
    assert end.error is error
    assert end.value is None


def test_the_traceback_begins_in_the_users_code() -> None:
    """Nobody wants to read about our frames."""

    def fails() -> None:
        raise ValueError

    end = perform(fails, (), {})
    assert end.error is not None
    assert [frame.name for frame in traceback.extract_tb(end.error.__traceback__)] == ["fails"]


def test_wrong_arguments_are_a_failure() -> None:
    """A call that can't be made fails the job, and not the runner."""
    end = perform(lambda: None, (1,), {})
    assert isinstance(end.error, TypeError)
    assert end.kind is EndKind.ERROR


# catch_all_exceptions


@pytest.mark.parametrize("error", [ValueError("x"), GeneratorExit(), OSError(5, "I/O")], ids=lambda e: type(e).__name__)
def test_any_exception_asks_for_another_attempt(error: BaseException) -> None:
    """The decorated function raises JobFailedError, from what it was."""

    @catch_all_exceptions
    def fails() -> None:
        raise error

    with pytest.raises(JobFailedError, match=type(error).__name__) as caught:
        fails()
    assert caught.value.__cause__ is error
    assert perform(fails, (), {}).kind is EndKind.FAILED


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(2), JobFailedError("mine")], ids=lambda e: type(e).__name__
)
def test_what_stops_a_process_goes_through(error: BaseException) -> None:
    """A person can still stop it, and a JobFailedError stays itself."""

    @catch_all_exceptions
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fails()
    assert caught.value is error


def test_the_decorated_function_is_the_function() -> None:
    """Name, docstring, arguments and value are those of the function."""

    @catch_all_exceptions
    def job(data: dict[str, Any], *, factor: int = 2) -> int:
        """Multiply."""
        return int(data["x"]) * factor

    assert (job.__name__, job.__doc__, job({"x": 2}, factor=3)) == ("job", "Multiply.", 6)
