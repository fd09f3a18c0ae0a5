"""Exceptions as records, there and back: they keep their type, or are text, and never do harm."""

from __future__ import annotations

import asyncio
import builtins
import json
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from io import BufferedReader, BytesIO
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.unit.bomb import Bomb
from workerbee import pickling
from workerbee.errors import JobFailedError, RemoteError
from workerbee.wire import failures


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


class SlottedError(Exception):
    __slots__ = ("a",)

    def __init__(self, *, a: int) -> None:
        self.a = a


class GoneError(OSError):
    """Its signature isn't an OSError's."""

    def __init__(self, *, name: str) -> None:
        super().__init__(2, "gone", name)
        self.mine = name


class OddGroup(getattr(builtins, "ExceptionGroup", OddError)):  # type: ignore[misc]
    """A group of its own signature, where there are groups."""

    def __new__(cls, message: str, errors: list[Exception]) -> Any:
        return super().__new__(cls, message, errors)

    def __init__(self, message: str, errors: list[Exception]) -> None:
        self.mine = message


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


class DelegatingError(Exception):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class FrozenSlotsError(Exception):
    code: int


class SlotsError(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        self.code = code


class PathError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "not there", path)


class FalsyError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError

    def __len__(self) -> int:
        return 0


class RingError(Exception):
    """Holds itself, and a lock."""

    def __init__(self, *, code: int) -> None:
        super().__init__("ring")
        self.code = code
        self.me = self
        self.lock = threading.Lock()


class NotedError(Exception):
    __notes__ = 7


class StubbornError(Exception):
    """Lets nothing be read or set."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError(name)


class RecursiveError(Exception):
    def __str__(self) -> str:
        return str(self)

    __repr__ = __str__


class UnequalError(Exception):
    def __eq__(self, other: object) -> bool:
        raise SystemExit

    def __hash__(self) -> int:
        raise SystemExit


class LeavingStateError(Exception):
    def __setstate__(self, state: Any) -> None:
        raise SystemExit

    def __reduce__(self) -> Any:
        raise GeneratorExit


class StartingError(Exception):
    def __str__(self) -> str:
        thread = threading.Thread(target=len, args=((),))
        thread.start()
        thread.join()
        return "started"


HOSTILE: dict[str, tuple[Callable[[], Exception], Callable[[Any], Any], Any]] = {
    "a download's": (
        lambda: HTTPError("http://x", 404, "Not Found", Message(), BufferedReader(BytesIO(b"x"))),  # type: ignore[arg-type]
        lambda e: (e.code, e.msg, str(e), hasattr(e, "no"), e.close()),
        (404, "Not Found", "HTTP Error 404: Not Found", False, None),
    ),
    "delegating": (lambda: DelegatingError(3), lambda e: (e.real, hasattr(e, "no")), (3, False)),
    "delegating to a lock": (lambda: DelegatingError(threading.Lock()), lambda e: hasattr(e, "no"), False),
    "frozen": (lambda: FrozenError(1, note="n"), lambda e: (e.code, e.note), (1, "n")),
    "frozen, by keyword": (lambda: FrozenError(code=1), lambda e: e.code, 1),
    "frozen with slots": (lambda: FrozenSlotsError(code=2), lambda e: (e.code, repr(e)[-8:]), (2, "(code=2)")),
    "slots": (lambda: SlotsError(4), lambda e: (e.code, hasattr(e, "unset")), (4, False)),
    "an OSError's": (
        lambda: PathError("p"),
        lambda e: (e.errno, e.filename, str(e)),
        (2, "p", "[Errno 2] not there: 'p'"),
    ),
    "false": (lambda: FalsyError("x"), lambda e: e.args, ("x",)),
    "a ring": (lambda: RingError(code=5), lambda e: (e.me is e, e.code, "lock" in e.lock), (True, 5, True)),
    "noted": (lambda: NotedError("n"), lambda e: e.args, ("n",)),
    "stubborn": (lambda: StubbornError("s"), BaseException.args.__get__, ("s",)),  # type: ignore[attr-defined]
    "recursive": (lambda: RecursiveError("r"), lambda e: e.args, ("r",)),
    "unequal": (lambda: UnequalError("u"), lambda e: e.args, ("u",)),
    "leaving while pickled": (lambda: LeavingStateError("l"), lambda e: e.args, ("l",)),
    "starting threads": (lambda: StartingError("t"), str, "started"),
}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")
def test_a_group_of_hostile_exceptions_keeps_theirs() -> None:
    """Each one in it is taken apart as it would be alone."""
    members = [make() for make, _, _ in list(HOSTILE.values())[:8]]
    again: Any = there_and_back(builtins.ExceptionGroup("g", members))  # type: ignore[attr-defined,unused-ignore]
    assert [type(error) for error in again.exceptions] == list(map(type, members))


@pytest.mark.parametrize(("make", "look", "seen"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_exception_keeps_its_type(
    make: Callable[[], Exception], look: Callable[[Any], Any], seen: object
) -> None:
    """Whatever its own methods do; it can be used as before, has its notes and its cause, and can be raised."""
    again = there_and_back(make(), notes=["job 7"])
    assert type(again) is type(make())
    assert look(again) == seen
    with pytest.raises(type(again)):
        raise again
    attributes = BaseException.__dict__["__dict__"].__get__(again)
    assert sys.version_info < (3, 11) or attributes["__notes__"] == ["job 7"]
    assert "in raised" in str(BaseException.__dict__["__cause__"].__get__(again))


class NamelessType(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__qualname__", "__name__"):
            raise KeyError(name)
        return super().__getattribute__(name)


class NamelessError(Exception, metaclass=NamelessType):
    pass


class MaskedError(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise SystemExit


class LeavingError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize("make", [lambda: NamelessError("x"), lambda: MaskedError("x")], ids=["nameless", "masked"])
def test_the_most_hostile_exception_is_remote(make: Any) -> None:
    """There is always a record, and an exception that does no harm."""
    again = there_and_back(make())
    assert type(again) is RemoteError
    assert again.message == "x"
    assert "in raised" in again.traceback_text


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


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()],
    ids=lambda e: type(e).__name__,
)
def test_what_would_end_the_client_is_remote(error: BaseException) -> None:
    """SystemExit and its like are recorded, and arrive as something that `except Exception` catches."""
    again = there_and_back(error)
    assert type(again) is RemoteError
    assert again.type_name.endswith(type(error).__name__)


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
    assert len(record["message"]) <= failures.TRACEBACK_CHARS
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
    for data in (json.dumps(record).encode(), b"", b"{", b"\xff", b"[" * 100_000):
        for trusted in (False, True):
            assert type(failures.decode_error(data, trusted=trusted)) is RemoteError


@pytest.mark.parametrize("leaving", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_the_reader_is_an_error(leaving: type[BaseException]) -> None:
    """A value that exits where it is unpickled does so for nobody."""

    def leave() -> None:
        raise leaving

    with pytest.raises(RemoteError, match=leaving.__name__):
        failures.tamed(leave)


def test_an_interrupt_is_the_users() -> None:
    """Unless it comes again when the value is unpickled again."""
    came: list[int] = []

    def interrupted() -> None:
        came.append(1)
        if len(came) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failures.tamed(interrupted)
    assert len(came) == 2


def test_errors_of_classes_of_a_script_come_back(tmp_path: Any) -> None:
    """An exception class of `__main__` travels by value, from one process to another."""
    script = "from workerbee.wire import failures\nclass Mine(Exception): pass\nimport sys\n"
    script += "sys.stdout.buffer.write(failures.encode_error(Mine('x')))"
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    again = failures.decode_error(data, trusted=True)
    assert type(again).__name__ == "Mine"
    assert again.args == ("x",)


@pytest.mark.parametrize(
    "held",
    [
        "x" * 12_000_000,
        bytes(12_000_000),
        [*map(bytes, range(4_000_000, 4_000_003)), ValueError("inner")],
        Future[int](),
        (Future[int](),),
    ],
    ids=["a long text", "bytes", "a list", "a future", "a future in a tuple"],
)
def test_an_exception_with_too_much_in_it_keeps_its_type(held: Any) -> None:
    """What is large, or of no use elsewhere, becomes its text."""
    error = HolderError("m", held)
    vars(error)["held"] = held
    again = there_and_back(error)
    assert isinstance(again, HolderError)
    assert again.args[0] == "m"
    assert str(again.args[1])[:8] == str(held)[:8]
    assert len(failures.encode_error(error)) < 300_000


@pytest.mark.parametrize(
    "error",
    [
        OddError(3, detail="d"),
        NewlyOddError(1, 2),
        SlottedError(a=1),
        GoneError(name="f"),
        OddGroup("g", [ValueError()]),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_is_a_value_too(error: Exception) -> None:
    """As what a call returns or is given, whatever its signature."""
    [again] = pickle.loads(pickling.dumps([error]))
    assert type(again) is type(error)
    assert (str(again), repr(again.args), vars(again)) == (str(error), repr(error.args), vars(error))
    assert [getattr(again, n, None) for n in ("a", "errno", "filename")] == [
        getattr(error, n, None) for n in ("a", "errno", "filename")
    ]
