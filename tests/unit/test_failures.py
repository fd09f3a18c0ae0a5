"""Exceptions as records, there and back: they keep their type, or are text, and never do harm."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from workerbee import failures
from workerbee.errors import JobFailedError, RemoteError


class OddError(Exception):
    """Its signature isn't its args."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class NewlyOddError(Exception):
    """Even __new__ wants what args don't have."""

    def __new__(cls, a: int, b: int) -> Any:
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int) -> None:
        super().__init__()


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class HolderError(Exception):
    """Holds what can't be pickled."""


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 (for its traceback)
    except BaseException as caught:  # noqa: BLE001
        return caught


def there_and_back(error: BaseException, **options: Any) -> BaseException:
    return failures.decode_error(failures.encode_error(raised(error), **options), trusted=True)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OddError(3, detail="d"),
        JobFailedError("again"),
        NewlyOddError(1, 2),
        UnicodeDecodeError("utf8", b"x", 0, 1, "r"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_keeps_its_type(error: Exception) -> None:
    """Type, arguments and attributes come back, whatever the signature."""
    again = there_and_back(error)
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert {k: v for k, v in vars(again).items() if k != "__notes__"} == vars(error)


def test_local_exceptions_keep_their_type() -> None:
    """A class made inside a function is the same class when it comes back to its process."""

    class LocalError(Exception):
        pass

    with pytest.raises(LocalError, match="x"):
        raise there_and_back(LocalError("x"))


def test_an_exception_that_holds_the_unpicklable_keeps_its_type() -> None:
    """What it holds is given up before its type is."""
    error = HolderError("text", (x for x in ()))
    error.frame = sys._getframe()  # type: ignore[attr-defined]
    again = there_and_back(error)
    assert type(again) is HolderError
    assert again.args[0] == "text"
    assert "generator" in again.args[1]


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def test_an_exception_that_can_not_be_rebuilt_is_remote() -> None:
    """A RemoteError says the type, the message and the traceback."""
    again = there_and_back(LeavingError(1, 2))
    assert type(again) is RemoteError
    assert again.type_name.endswith("test_failures.LeavingError")
    assert again.message == "<its __str__ raised SystemExit>"
    assert "in raised" in again.traceback_text


def test_an_exception_whose_str_raises_is_recorded() -> None:
    """User code in an exception can't stop its record."""
    record = json.loads(failures.encode_error(raised(SilentError())))
    assert record["message"] == "<its __str__ raised RuntimeError>"
    assert type(there_and_back(SilentError())) is SilentError


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
def test_what_would_end_the_client_is_remote(error: BaseException) -> None:
    """SystemExit and its like are recorded, and arrive as something that `except Exception` catches."""
    again = there_and_back(error)
    assert type(again) is RemoteError
    assert again.type_name == type(error).__name__


def test_the_remote_traceback_is_the_cause() -> None:
    """A traceback that is printed shows where it was raised, over there."""
    again = there_and_back(ValueError("x"))
    shown = "".join(traceback.format_exception(again))
    assert "in raised\n" in shown
    assert shown.count("ValueError: x") == 2


def test_causes_are_in_the_traceback() -> None:
    """What an exception was raised from is text in the traceback."""
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in str(there_and_back(error).__cause__)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_notes_are_added() -> None:
    """Where it ran is a note behind those of the job's own."""
    error = ValueError("x")
    error.add_note("mine")
    assert there_and_back(error, notes=["job 7"]).__notes__ == ["mine", "job 7"]
    assert there_and_back(SystemExit(), notes=["job 7"]).__notes__ == ["job 7"]


def test_long_texts_are_cut() -> None:
    """A message of megabytes doesn't fill the table; both ends of a long traceback are kept."""
    record = json.loads(failures.encode_error(raised(ValueError("x" * 10_000_000)), text_only=True))
    assert len(record["message"]) <= failures.TRACEBACK
    assert "characters left out" in record["traceback"]
    assert record["traceback"].startswith("Traceback")


def test_texts_are_fit_for_postgresql() -> None:
    """NUL and lone surrogates in messages are written out."""
    record = json.loads(failures.encode_error(raised(ValueError("a\0b\ud800"))))
    assert record["message"] == "a\\0b\\ud800"
    assert "\0" not in record["traceback"]


def test_a_keyless_bee_records_text_alone() -> None:
    """Without a key there is nothing to unpickle."""
    data = failures.encode_error(raised(ValueError("x")), text_only=True)
    assert json.loads(data)["pickle"] is None
    assert type(failures.decode_error(data, trusted=True)) is RemoteError


class Bomb:
    """Leaves a mark where it is unpickled."""

    gone_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "gone_off", True)


@pytest.fixture
def bomb() -> Iterator[str]:
    yield base64.b64encode(pickle.dumps(Bomb())).decode()
    Bomb.gone_off = False


def test_an_untrusted_error_is_never_unpickled(bomb: str) -> None:
    """The pickle in a record counts only if its signature held."""
    record = {"type": "ValueError", "message": "m", "traceback": "t", "notes": [], "pickle": bomb}
    error = failures.decode_error(json.dumps(record).encode(), trusted=False)
    assert type(error) is RemoteError
    assert not Bomb.gone_off
    failures.decode_error(json.dumps(record).encode(), trusted=True)
    assert Bomb.gone_off, "this test's bomb doesn't work"


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        1,
        "x",
        {},
        {"notes": 5},
        {"notes": {"a": 1}},
        {"type": None, "message": [], "traceback": 7, "pickle": 3},
    ],
    ids=repr,
)
def test_any_json_is_an_error_record(record: object) -> None:
    """Whoever writes nonsense into the table breaks nothing."""
    for trusted in (False, True):
        assert type(failures.decode_error(json.dumps(record).encode(), trusted=trusted)) is RemoteError


def test_errors_of_classes_of_a_script_come_back(tmp_path: Any) -> None:
    """An exception class of `__main__` travels by value, from one process to another."""
    script = "from workerbee import failures\nclass Mine(Exception): pass\nimport sys\n"
    script += "sys.stdout.buffer.write(failures.encode_error(Mine('x')))"
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    again = failures.decode_error(data, trusted=True)
    assert type(again).__name__ == "Mine"
    assert again.args == ("x",)
