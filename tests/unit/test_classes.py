"""Classes by value: they come back as the classes that they were, and nothing that comes back changes them."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from workerbee import pickling
from workerbee.wire import classes
from workerbee.wire.functions import Cache

SOURCE = """
import abc, collections, ctypes, dataclasses, enum, functools, typing
G = 6.67

class Planet(enum.Enum):
    MERCURY = (3.3e23, 2.4e6)
    EARTH = (5.9e24, 6.3e6)
    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius
    @property
    def gravity(self): return G * self.mass / self.radius ** 2
class Alias(enum.Enum):
    A = 1
    B = 2
    ALSO_A = 1
class Int(enum.IntEnum):
    X = 1
    Y = 2
class Text(str, enum.Enum):
    X = "x"
class Flags(enum.Flag):
    R = 1
    W = 2
    RW = 3
class IntFlags(enum.IntFlag):
    R = 1
    W = 2
class Auto(enum.Enum):
    def _generate_next_value_(name, start, count, last): return name.lower()
    P = enum.auto()
    Q = enum.auto()
class Coordinate(bytes, enum.Enum):
    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_, made.label = value, label
        return made
    PX = (0, "P.X")
    PY = (1, "P.Y")
class Tuples(tuple, enum.Enum):
    A = (1, 2)
    B = (3, 4)
class Missing(enum.Enum):
    A = "a"
    @classmethod
    def _missing_(cls, value): return cls.A
class Itself(enum.Enum):
    A = 1
    def other(self): return Itself.A
    def __str__(self): return "itself"
class Mixed(enum.Enum):
    A = frozenset({1})
    B = [1]
@dataclasses.dataclass
class Body:
    size: int
    legs: int = 4
class Beast(Body, enum.Enum):
    DOG = 2, 4
    def __str__(self): return self.name
@dataclasses.dataclass(frozen=True)
class Frozen:
    a: int
    b: list = dataclasses.field(default_factory=list, compare=False)
@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: int = 2
class Later:
    def __new__(cls, a):
        @dataclasses.dataclass
        class Made(Slotted): d: int = 4
        return repr(Made(a))
@dataclasses.dataclass(frozen=True, slots=True)
class Both:
    a: int
    b: int = 2
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    def __init__(self, value): self.value = value
class IntBox(Box[int]): pass
class Named(typing.NamedTuple):
    a: int
    b: int = 3
Tuple = collections.namedtuple("Tuple", "a b", defaults=[5])
class Typed(typing.TypedDict):
    a: int
class MoreTyped(Typed, total=False):
    b: str
Functional = typing.TypedDict("Functional", {"a-b": int})
class Abstract(abc.ABC):
    @abc.abstractmethod
    def m(self): ...
class Concrete(Abstract):
    def m(self): return super().__init__ is not None
class Slots:
    __slots__ = ("a", "__private")
    def __init__(self): self.a, self.__private = 1, 2
    def get(self): return self.a, self.__private
class MoreSlots(Slots):
    __slots__ = "c"
class Meta(type):
    def __new__(m, n, b, d, **k): return super().__new__(m, n, b, d)
    def __init__(c, n, b, d, **k): super().__init__(n, b, d)
class Made(metaclass=Meta, flag=3): y = 1
class Hooked:
    seen = []
    def __init_subclass__(cls, tag, **more): Hooked.seen.append(cls.__name__); cls.tag = tag
class Under(Hooked, tag="t"): pass
class Error(Exception):
    def __init__(self, code, *, extra): super().__init__(f"code {code}"); self.code, self.extra = code, extra
class Descriptor:
    def __set_name__(self, owner, name): self.name = name
    def __get__(self, instance, owner=None): return self.name
class Described:
    x = Descriptor()
    @functools.cached_property
    def v(self): return 5
class Odd(type):
    def __eq__(cls, other): raise RuntimeError
    __hash__ = None
    def __setattr__(cls, name, value): raise AttributeError(name)
    def __bool__(cls): raise RuntimeError
class Constant(metaclass=Odd): value = 3
class Structure(ctypes.Structure): _fields_ = [("a", ctypes.c_int), ("b", ctypes.c_double)]
class Outer:
    class Inner:
        z = 1
        class Deep(typing.NamedTuple): a: int
    def make(self): return Outer.Inner()
"""
#: What is to be the same on the other side.
USES = {
    "an enum with attributes": "Planet.EARTH.mass, Planet.EARTH.gravity, list(Planet), Planet((3.3e23, 2.4e6))",
    "aliases": "Alias.ALSO_A is Alias.A, list(Alias.__members__), list(Alias)",
    "an IntEnum": "Int.X + 1, isinstance(Int.X, int), Int(2), str(Int.X)",
    "an enum of texts": "Text.X == 'x', Text.X.upper(), Text('x')",
    "flags": "Flags.R | Flags.W, Flags.RW, Flags(3) is Flags.RW, ~Flags.R, list(Flags.__members__)",
    "integer flags": "IntFlags.R | IntFlags.W, IntFlags.R | 8, ~IntFlags.R",
    "values that were made": "[a.value for a in Auto]",
    "an enum with a __new__": "Coordinate.PY.label, bytes(Coordinate.PY), Coordinate.PY.value, Coordinate(1).label",
    "an enum of tuples": "Tuples.A, Tuples.A[1], Tuples((3, 4)) is Tuples.B",
    "_missing_": "Missing('zz')",
    "an enum that names itself": "Itself.A.other(), str(Itself.A)",
    "an enum of what has no hash": "Mixed.B.value, Mixed([1]), Mixed(frozenset({1}))",
    "an enum of dataclasses": "Beast.DOG.size, Beast.DOG.legs, str(Beast.DOG)",
    "a frozen class": "Frozen(1), hash(Frozen(1)) == hash(Frozen(1)), Frozen(1).b, Frozen(1) == Frozen(1, [2])",
    "a slotted class": "Slotted(1), hasattr(Slotted(1), '__dict__'), Slotted.__slots__",
    "a frozen and slotted class": "Both(1), hasattr(Both(1), '__dict__'), dataclasses.replace(Both(1), a=5)",
    "a generic class": "Box(1).value, Box[int], IntBox(2).value, IntBox.__orig_bases__, Box.__parameters__",
    "a named tuple": "Named(1), Named._fields, Named(1).b, Named.__slots__, Tuple(1)",
    "a typed dict": "Typed(a=1), Typed.__annotations__",
    "a typed dict of another": "MoreTyped(a=1), typing.get_type_hints(MoreTyped), MoreTyped.__total__",
    "a typed dict by a call": "Functional({'a-b': 1}), Functional.__annotations__",
    "marks of dataclasses": "[f.default is dataclasses.MISSING for f in dataclasses.fields(Frozen)], Later(1)",
    "an abstract class": "Concrete().m(), Abstract.__abstractmethods__, issubclass(Concrete, Abstract)",
    "slots": "Slots().get(), MoreSlots().get(), hasattr(Slots(), '__dict__'), MoreSlots.__slots__",
    "a metaclass": "Made.y, type(Made).__name__",
    "__init_subclass__": "Under.tag, Hooked.seen",
    "an exception": "Error(1, extra=2).extra, str(Error(1, extra=2))",
    "descriptors": "Described.x, Described().v",
    "a metaclass that says what it equals, and takes no attributes": "Constant.value, Constant().value",
    "a structure of C": "Structure(1, 2.5).b, ctypes.sizeof(Structure), bytes(Structure(1, 2))",
    "an inner class": "Outer().make().z, Outer.Inner.__qualname__, Outer.Inner.Deep.__qualname__",
}
CHILD = """
import pickle, sys
for name, data, expected in pickle.load(open(sys.argv[1], "rb")):
    try:
        got = repr(pickle.loads(data)())
    except Exception as error:
        got = repr(error)
    if got != expected:
        print(f"{name}: {got} instead of {expected}")
"""


def script(source: str) -> dict[str, Any]:
    """What a script or a notebook has defined."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(source), space)
    return space


def test_every_kind_of_class_comes_over(tmp_path: Path) -> None:
    """In another process it is and does what it is and does here."""
    space = script(SOURCE)
    cases = []
    for name, use in USES.items():
        exec(f"def use(): return {use}", space)
        cases.append((name, pickling.dumps(space["use"]), repr(space["use"]())))
    (tmp_path / "cases").write_bytes(pickle.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "cases")], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """This process's ``__main__`` as it would be of a script with these classes."""
    space = script(
        """
        import enum
        class Color(enum.Enum):
            RED = 1
        class Counted:
            n = 0
            def __init__(self): type(self).n += 1
            def m(self): return 1
            class Inner: pass
        """
    )
    for name in ("Color", "Counted"):
        monkeypatch.setattr(sys.modules["__main__"], name, space[name], raising=False)
    return space


RUNNER = """
import pickle, sys
from workerbee import pickling
from workerbee.wire.functions import Loader
function = Loader().load(*pickle.load(open(sys.argv[1], "rb")))[0]
sys.stdout.buffer.write(pickling.dumps(function()))
"""


def result_of(fn: Any, tmp_path: Path) -> bytes:
    """The pickled result of a function in a runner."""
    record = Cache().describe(fn)
    (tmp_path / "function").write_bytes(pickle.dumps((record.codec, record.body, record.python)))
    done = subprocess.run([sys.executable, "-c", RUNNER, str(tmp_path / "function")], capture_output=True, check=True)
    return done.stdout


def test_results_are_of_the_client_s_own_classes(main: dict[str, Any], tmp_path: Path) -> None:
    """In the process that sent them, and in the next one; and they aren't changed by what comes back."""
    exec("def f(): return Color.RED, Counted(), Color, Counted.Inner()", main)
    main["Counted"](), main["Counted"]()
    data = result_of(main["f"], tmp_path)
    for _ in range(2):
        member, counted, kind, inner = pickle.loads(data)
        assert type(inner) is main["Counted"].Inner
        assert member is main["Color"].RED
        assert kind is main["Color"]
        assert type(counted) is main["Counted"]
        assert main["Counted"].n == 2, "neither reset nor counted by what the runner did"
        # Another process with the same script knows nothing of what this one has sent.
        classes._DYNAMIC_CLASS_TRACKER_BY_ID.clear()


def test_another_class_of_the_name_is_another_class(
    main: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made by other code comes with that code."""
    exec("def f(): return Color.RED, Counted()", main)
    data = result_of(main["f"], tmp_path)
    classes._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    other = script("import enum\nclass Color(enum.Enum):\n  RED = 2\nclass Counted:\n  def m(self): return 2")
    for name in ("Color", "Counted"):
        monkeypatch.setattr(sys.modules["__main__"], name, other[name])
    member, counted = pickle.loads(data)
    assert (member.value, type(member) is other["Color"]) == (1, False)
    assert (counted.m(), type(counted) is other["Counted"]) == (1, False)


def test_a_class_that_has_come_back_is_not_changed_by_the_next_result(tmp_path: Path) -> None:
    """Where a client hasn't the class, the first result brings it, and the next one leaves it as it is by then."""
    space = script("class Brought:\n  n = 0\ndef f(): return Brought()")
    results = []
    for n in range(2):
        space["Brought"].n = n
        results.append(result_of(space["f"], tmp_path))
    classes._DYNAMIC_CLASS_TRACKER_BY_ID.clear()
    first = type(pickle.loads(results[0]))
    assert first is not space["Brought"]
    first.n = 7
    assert type(pickle.loads(results[1])) is first
    assert first.n == 7


def test_in_a_runner_jobs_change_classes_and_so_does_the_client(tmp_path: Path) -> None:
    """What a job has made of an attribute stays, until the client gives it another value."""
    child = """
        import pickle, sys
        from workerbee.wire.functions import Loader
        loader = Loader()
        for record in pickle.load(open(sys.argv[1], "rb")):
            print(loader.load(*record)[0]())
    """
    space = script("class A:\n  n, k = 0, 1\n  def m(self): return 'm1'\ndef f(): A.n += 1; return A.n, A.k, A().m()")
    cache, records = Cache(), []

    def send() -> None:
        record = cache.describe(space["f"])
        records.append((record.codec, record.body, record.python))

    send()
    send()
    space["A"].k = 2
    send()
    space["A"].m = script("def m(self): return 'm2'")["m"]
    send()
    space["A"].later = 5
    exec("def f(): A.own = 1; return A.later", space)
    send()
    del space["A"].later
    exec("def f(): return hasattr(A, 'later'), A.own", space)
    send()
    (tmp_path / "records").write_bytes(pickle.dumps(records))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(child), str(tmp_path / "records")],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ["(1, 1, 'm1')", "(2, 1, 'm1')", "(3, 2, 'm1')", "(4, 2, 'm2')", "5", "(False, 1)"]
    assert done.stdout.split("\n")[:-1] == expected


#: An instance of a script's class, as the version before this one pickled it.
GOLDEN = (
    "gAWVYwEAAAAAAACMF2Nsb3VkcGlja2xlLmNsb3VkcGlja2xllIwUX21ha2Vfc2tlbGV0b25fY2xhc3OUk5QojAhidWlsdGluc5SM"
    "BHR5cGWUk5SMBVBvaW50lGgCKGgFjARCYXNllGgDjAZvYmplY3SUk5SFlH2UjApfX21vZHVsZV9flIwIX19tYWluX1+Uc4wgZDcz"
    "ZGE5MGFjNzZlNDY2ODkxZmI2ZjU0MzRmMjM4MTmUTnSUUpRoAIwPX2NsYXNzX3NldHN0YXRllJOUaBB9lCiMB19fZG9jX1+UTowK"
    "X19tb2R1bGVfX5RoDYwEa2luZJSMBGJhc2WUdX2UhpSGUjCFlH2UaAxoDXOMIGFhMzc1NWVjY2UxNjQ5Mzg5OTA5NmE0ZWE2ZDIy"
    "YTY1lE50lFKUaBJoHn2UKIwNX19zbG90bmFtZXNfX5RdlIwFc2NhbGWUSwp1fZSGlIZSMCmBlH2UjAF4lEsDc2Iu"
)


def test_pickles_of_older_versions_load() -> None:
    """Stored results are kept."""
    point = pickle.loads(base64.b64decode(GOLDEN))
    assert (type(point).__qualname__, point.x, point.scale, point.kind) == ("Point", 3, 10, "base")
