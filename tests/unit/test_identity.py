"""What counts of a function besides its code: whatever it names. The same code is the same, other code is other."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import random
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.test_functions import define, identity, loaded
from workerbee.client.futures import JobFuture
from workerbee.errors import EncodingError, FunctionOutdated, FunctionUnavailable
from workerbee.wire import functions, imports
from workerbee.wire.functions import Cache, Loader
from workerbee.wire.identity import Identity

#: Sources of a global `k`, twice; a function that names it is another one with the other.
GLOBALS = {
    "a namespace": (
        "from argparse import Namespace as N; k = N(lr=1)",
        "from argparse import Namespace as N; k = N(lr=2)",
    ),
    "a simple namespace": (
        "from types import SimpleNamespace as N; k = N(a=1)",
        "from types import SimpleNamespace as N; k = N(a=2)",
    ),
    "a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n  a: int\n  b: list\nk = C(1, [1])",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n  a: int\n  b: list\nk = C(1, [2])",
    ),
    "a slotted object": (
        "class C:\n  __slots__ = ('a',)\nk = C(); k.a = 1",
        "class C:\n  __slots__ = ('a',)\nk = C(); k.a = 2",
    ),
    "a named tuple": (
        "from collections import namedtuple\nT = namedtuple('T', 'a b')\nk = T(1, 2)",
        "from collections import namedtuple\nT = namedtuple('T', 'a b')\nk = T(1, 3)",
    ),
    "a regex": ("import re; k = re.compile('a+')", "import re; k = re.compile('b+')"),
    "a regex's flags": ("import re; k = re.compile('a', re.I)", "import re; k = re.compile('a')"),
    "a path": ("from pathlib import Path; k = Path('/a')", "from pathlib import Path; k = Path('/b')"),
    "a date": ("from datetime import date; k = date(2020, 1, 1)", "from datetime import date; k = date(2020, 1, 2)"),
    "a time": ("from datetime import timedelta as t; k = t(1)", "from datetime import timedelta as t; k = t(2)"),
    "a decimal": ("from decimal import Decimal as D; k = D('1.0')", "from decimal import Decimal as D; k = D('1.00')"),
    "a fraction": (
        "from fractions import Fraction as F; k = F(1, 3)",
        "from fractions import Fraction as F; k = F(1, 4)",
    ),
    "a uuid": ("from uuid import UUID; k = UUID(int=1)", "from uuid import UUID; k = UUID(int=2)"),
    "an enum's value": ("import enum\nclass k(enum.Enum):\n  A = 1", "import enum\nclass k(enum.Enum):\n  A = 2"),
    "an enum's alias": ("import enum\nclass k(enum.Enum):\n  A = B = 1", "import enum\nclass k(enum.Enum):\n  A = 1"),
    "an enum's member": (
        "import enum\nclass E(enum.Enum):\n  A = 1\n  B = 2\nk = E.A",
        "import enum\nclass E(enum.Enum):\n  A = 1\n  B = 2\nk = E.B",
    ),
    "a member's attribute": (
        "import enum\nclass E(enum.Enum):\n  A = (1, 2)\n  def __init__(s, a, b): s.m = a\nk = E.A",
        "import enum\nclass E(enum.Enum):\n  A = (1, 2)\n  def __init__(s, a, b): s.m = b\nk = E.A",
    ),
    "a partial": (
        "from functools import partial\nk = partial(int, base=2)",
        "from functools import partial\nk = partial(int, base=3)",
    ),
    "a partial of a function": (
        "from functools import partial\ndef g(a, b): return a\nk = partial(g, 1)",
        "from functools import partial\ndef g(a, b): return b\nk = partial(g, 1)",
    ),
    "a method": (
        "class C:\n  def __init__(s, a): s.a = a\n  def m(s, x): return s.a\nk = C(1).m",
        "class C:\n  def __init__(s, a): s.a = a\n  def m(s, x): return s.a\nk = C(2).m",
    ),
    "a function behind a decorator that is a class": (
        (
            "import functools\nclass D:\n  def __init__(s, f): functools.update_wrapper(s, f)\n"
            "  def __call__(s, x): return s.__wrapped__(x)\n@D\ndef k(x): return 1"
        ),
        (
            "import functools\nclass D:\n  def __init__(s, f): functools.update_wrapper(s, f)\n"
            "  def __call__(s, x): return s.__wrapped__(x)\n@D\ndef k(x): return 2"
        ),
    ),
    "a function that only its wrapper's attribute holds": (
        (
            "import functools\ndef d(g):\n  @functools.wraps(g)\n  def w(x): return w.__wrapped__(x)\n  return w\n"
            "@d\ndef k(x): return 1"
        ),
        (
            "import functools\ndef d(g):\n  @functools.wraps(g)\n  def w(x): return w.__wrapped__(x)\n  return w\n"
            "@d\ndef k(x): return 2"
        ),
    ),
    "a format of bytes": ("import struct; k = struct.Struct('<I')", "import struct; k = struct.Struct('<H')"),
    "a method of such a format": (
        "import struct; k = struct.Struct('<I').unpack",
        "import struct; k = struct.Struct('<H').unpack",
    ),
    "what a cache of weak references holds": (
        "import weakref\nclass C: pass\nc = C(); c.a = 1; k = weakref.WeakValueDictionary(x=c)",
        "import weakref\nclass C: pass\nc = C(); c.a = 2; k = weakref.WeakValueDictionary(x=c)",
    ),
    "a library in C": ("import ctypes; k = ctypes.CDLL(None)", "import ctypes; k = ctypes.CDLL('libm.so.6')"),
    "the type of a C function": (
        "import ctypes; l = ctypes.CDLL(None); k = l.abs; k.restype = ctypes.c_int",
        "import ctypes; l = ctypes.CDLL(None); k = l.abs; k.restype = ctypes.c_long",
    ),
    "an array of C": ("import ctypes; k = ctypes.c_int * 3", "import ctypes; k = ctypes.c_int * 4"),
    "a lock of a module": ("from logging import _lock as k", "from threading import _active_limbo_lock as k"),
    "a decorator that is a class": (
        "class D:\n  def __init__(s, f): s.f = f\n  def __call__(s, x): return s.f(x)\n@D\ndef k(x): return 1",
        "class D:\n  def __init__(s, f): s.f = f\n  def __call__(s, x): return s.f(x) + 1\n@D\ndef k(x): return 1",
    ),
    "a function's attribute": ("def k(x): return k.a\nk.a = 1", "def k(x): return k.a\nk.a = 2"),
    "an array": ("import numpy; k = numpy.arange(3)", "import numpy; k = numpy.arange(4)"),
    "an ordered dict": (
        "from collections import OrderedDict as O; k = O(a=1)",
        "from collections import OrderedDict as O; k = O(a=2)",
    ),
    "a counter": (
        "from collections import Counter as C; k = C('ab')",
        "from collections import Counter as C; k = C('abb')",
    ),
    "a deque": ("from collections import deque as D; k = D([1])", "from collections import deque as D; k = D([2])"),
    "an itemgetter": (
        "from operator import itemgetter as i; k = i(1)",
        "from operator import itemgetter as i; k = i(2)",
    ),
    "a logger": ("import logging; k = logging.getLogger('a')", "import logging; k = logging.getLogger('b')"),
    "objects in a list": ("from pathlib import Path; k = [Path('a')]", "from pathlib import Path; k = [Path('b')]"),
    "objects in a dict": (
        "from pathlib import Path; k = {1: Path('a')}",
        "from pathlib import Path; k = {1: Path('b')}",
    ),
    "objects in a set": ("from pathlib import Path; k = {Path('a')}", "from pathlib import Path; k = {Path('b')}"),
    "an object that is a class's attribute": (
        "from pathlib import Path\nclass k:\n  p = Path('a')",
        "from pathlib import Path\nclass k:\n  p = Path('b')",
    ),
    "a metaclass": (
        "class M(type):\n  def __call__(c): return 1\nclass k(metaclass=M): pass",
        "class M(type):\n  def __call__(c): return 2\nclass k(metaclass=M): pass",
    ),
    "a module of nowhere": (
        "import types; k = types.ModuleType('m'); k.v = 1",
        "import types; k = types.ModuleType('m'); k.v = 2",
    ),
    "a function of a module of nowhere": (
        "import types; k = types.ModuleType('m'); exec('n = 1\\ndef g(): return n', vars(k))",
        "import types; k = types.ModuleType('m'); exec('n = 2\\ndef g(): return n', vars(k))",
    ),
    "a class's factory": (
        "import dataclasses as d\n@d.dataclass\nclass k:\n  a: list = d.field(default_factory=list)",
        "import dataclasses as d\n@d.dataclass\nclass k:\n  a: list = d.field(default_factory=set)",
    ),
    "what a class says of a field": (
        "import dataclasses as d\n@d.dataclass\nclass k:\n  a: int = d.field(metadata={'unit': 1})",
        "import dataclasses as d\n@d.dataclass\nclass k:\n  a: int = d.field(metadata={'unit': 2})",
    ),
    "a field's type": ("class k:\n  a: int", "class k:\n  a: str"),
    "a type variable's bound": (
        "import typing; k = typing.TypeVar('k', bound=int)",
        "import typing; k = typing.TypeVar('k', bound=str)",
    ),
    "the class of a partial": (
        "import functools\nclass P(functools.partial):\n  def __call__(s): return 1\nk = P(int)",
        "import functools\nclass P(functools.partial):\n  def __call__(s): return 2\nk = P(int)",
    ),
    "an attribute of such a partial": (
        "import functools\nclass P(functools.partial): pass\nk = P(int); k.a = 1",
        "import functools\nclass P(functools.partial): pass\nk = P(int); k.a = 2",
    ),
    "an abstract class of a module that was told of it": (
        "import numbers\nclass k: pass\nnumbers.Number.register(k)",
        "class k: pass",
    ),
    "the class of bytes": (
        "class B(bytes):\n  def m(s): return 1\nk = B(b'')",
        "class B(bytes):\n  def m(s): return 2\nk = B(b'')",
    ),
    "the class of a property": (
        "class P(property):\n  def __get__(s, i, o): return 1\nclass k:\n  @P\n  def a(s): return 0",
        "class P(property):\n  def __get__(s, i, o): return 2\nclass k:\n  @P\n  def a(s): return 0",
    ),
}


@pytest.mark.parametrize(("before", "after"), GLOBALS.values(), ids=GLOBALS)
def test_globals_count(before: str, after: str) -> None:
    """A changed global is a changed function; the same source is the same one, and is remembered."""
    one, same, other = (define(f"{source}\ndef f(x): return k") for source in (before, before, after))
    assert identity(one) == identity(same) != identity(other)
    assert Cache().describe(one).memo, Cache().describe(one).culprit


LOOKUPS = {
    "globals": "return globals()['he' + x]()",
    "eval": "return eval('he' + x + '()')",
    "exec": "exec('global r; r = he' + x + '()'); return r",
    "the module": "import __main__; return getattr(__main__, 'he' + x)()",
    "its modules": "import sys; return getattr(sys.modules[__name__], 'he' + x)()",
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS)
def test_what_is_looked_up_counts(lookup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that looks names up as it runs brings what it may find, and is another one when that is another."""
    source = "import threading\nlock = threading.Lock()\ndef helper(): return {n}\ndef f(x): {lookup}"
    one, same, other = (define(source.format(n=n, lookup=lookup)) for n in (1, 1, 2))
    assert identity(one) == identity(same) != identity(other)
    cache = Cache()
    before = cache.describe(one)
    assert before.memo, before.culprit
    assert cache.describe(one) is before
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    found = loaded(before)
    space: Any = types.ModuleType("__main__")
    vars(space).update(found.__globals__)
    monkeypatch.setitem(sys.modules, "__main__", space)
    assert found("lper") == 1
    one.__globals__["helper"] = other.__globals__["helper"]
    assert cache.describe(one).identity == identity(other) != before.identity
    one.__globals__["variable"] = 5
    assert cache.describe(one).identity == identity(other)
    one.__globals__["LATER"] = 5
    assert cache.describe(one).identity != identity(other)


OWN = {
    "the environment": "from os import environ as k",
    "the path": "from sys import path as k",
    "a stream": "from sys import stdout as k",
    "the generator": "import random; k = random._inst",
    "its method": "from random import randint as k",
    "its method in C": "from random import random as k",
    "NumPy's generator": "import numpy; k = numpy.random.mtrand._rand",
    "its function": "from numpy.random import standard_normal as k",
}


@pytest.mark.parametrize("source", OWN.values(), ids=OWN)
def test_what_each_process_has_of_its_own_is_found_there(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that names it is the same whatever has become of it, and brings no copy of it."""
    fn = define(f"{source}\ndef f(x): return k")
    before = identity(fn)
    monkeypatch.setenv("SET_LATER", "yes")
    monkeypatch.syspath_prepend("later")
    random.random()
    np.random.random()  # noqa: NPY002 (that one is meant)
    assert identity(fn) == before
    record = Cache().describe(fn)
    assert record.memo
    assert loaded(record)(0) == fn(0)
    assert b"SET_LATER" not in record.body


@pytest.mark.parametrize(
    "draw", ["uniform(size=2)", "norm(0, 1).rvs(2)", "seldom.rvs(2)", "(rand(2), randint(1, 10**9), [gauss(0, 1)])"]
)
def test_a_job_that_seeds_draws_the_same(draw: str) -> None:
    """What a function names draws from the generators that the job seeds, as in a pool."""
    fn = define(
        f"""
        import random, numpy
        from random import gauss, randint
        from numpy.random import rand, uniform
        from scipy.stats import norm
        seldom = norm(0, 1)
        def f(x):
            random.seed(x)
            numpy.random.seed(x)
            return repr({draw})
        """
    )
    before = Cache().describe(fn)
    drawn = loaded(before)(1)
    assert drawn == fn(1) != fn(2)
    assert loaded(before)(1) == drawn
    assert identity(fn) == before.identity


def test_what_a_new_type_stands_for_counts() -> None:
    """Though it is pickled by its name."""
    made = [define(f"import typing\nk = typing.NewType('k', {t})\ndef f(x): return k") for t in ("int", "int", "str")]
    one, same, other = (Identity(fn).parts for fn in made)
    assert one == same != other


def test_subclasses_that_only_their_base_knows_count() -> None:
    """Who asks a class for its subclasses gets those that the script has, and is another function with another one."""
    source = "class B: pass\nclass C(B): k = {n}\ndef f(x): return [c.k for c in B.__subclasses__()]"
    one, same, other = (define(source.format(n=n)) for n in (1, 1, 2))
    assert identity(one) == identity(same) != identity(other)
    assert loaded(Cache().describe(other))(0) == [2]


def test_a_function_s_own_attributes_count() -> None:
    """They are looked at by the function, and travel with it."""
    one, two = (define(f"def f(x): return f.a\nf.a = {n}") for n in (1, 2))
    assert identity(one) != identity(two)
    cache = Cache()
    before = cache.describe(one)
    one.a = 2
    assert cache.describe(one).identity == identity(two) != before.identity


def test_what_has_names_may_be_changed_in_place() -> None:
    """An attribute of a global that is set is noticed in the same process too."""
    fn = define("from argparse import Namespace\nk = Namespace(lr=0.1, deep=Namespace(a=1))\ndef f(x): return k.lr")
    cache, k = Cache(), fn.__globals__["k"]
    seen = [cache.describe(fn)]
    assert cache.describe(fn) is seen[0]
    for change in (lambda: setattr(k, "lr", 0.2), lambda: setattr(k.deep, "a", 2), lambda: setattr(k, "new", 1)):
        change()
        seen.append(cache.describe(fn))
    assert len({record.identity for record in seen}) == 4


def test_an_abstract_class_may_be_told_of_another() -> None:
    """What is registered with it counts, and is noticed in the same process too when it is registered later."""
    source = "import abc\nclass A(abc.ABC): pass\nclass B: pass\nclass C: pass\n{}\ndef f(x): return issubclass(x, A)"
    told = "A.register(C); A.register(B)"
    one, same, other, fn = (define(source.format(line)) for line in (told, told, "", ""))
    assert identity(one) == identity(same) != identity(other) == identity(fn)
    cache, space = Cache(), fn.__globals__
    before = cache.describe(fn)
    assert cache.describe(fn) is before
    for name in "BC":
        space["A"].register(space[name])
    after = cache.describe(fn)
    assert after.identity == identity(one)


def test_a_dispatcher_may_be_told_of_another_type() -> None:
    """What is registered later is noticed in the same process too."""
    fn = define("import functools\n@functools.singledispatch\ndef f(x): return 0")
    cache = Cache()
    before = cache.describe(fn)
    assert before.memo
    assert cache.describe(fn) is before
    fn.register(int, define("def f(x): return 1"))
    assert loaded(cache.describe(fn))(2) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def f(n): return n * f(n - 1) if n else 1",
        "def g(n): return f(n - 1)\ndef f(n): return n and g(n)",
        "import functools\n@functools.cache\ndef f(n): return n and f(n - 1)",
        "import functools\n@functools.singledispatch\ndef f(n): return 0\n@f.register\ndef _(n: list): return f(1)",
        "class A:\n  def m(self): return A()\ndef f(n): return A().m()",
        "def m():\n  def f(n): return n and f(n - 1)\n  return f\nf = m()",
    ],
    ids=["itself", "each other", "behind a cache", "by its types", "a class that names itself", "in a cell"],
)
def test_recursion_is_compared(source: str) -> None:
    """A function that names itself is remembered, and is the same in the next process."""
    made = Cache().describe(define(source))
    assert made.memo
    assert made.identity == identity(define(source))


@pytest.mark.parametrize(
    ("source", "culprit"),
    [
        (
            "class Odd:\n  def __reduce__(self): raise TypeError('odd')\nk = Odd()\ndef f(x): return k",
            r"f → k \(Odd: odd\)",
        ),
        (
            (
                "class Odd:\n  def __reduce__(self): raise TypeError\nodd = Odd()\n"
                "def h(): return odd\ndef g(): return h()\n"
                "def f(x): return g()"
            ),
            r"f → h → odd \(Odd: TypeError\)",
        ),
        ("k = (i for i in 'a')\ndef f(x): return k", r"f → k \(generator: "),
        ("import threading\nclass A:\n  lock = threading.Lock()\ndef f(x): return A", r"A → lock \(lock: "),
        ("k = []\nfor _ in range(5000): k = (k, 1)\ndef f(x): return k", r"f → k \(tuple: .*recursion"),
    ],
    ids=["a global", "a helper's global", "a generator", "a class's attribute", "too deep"],
)
def test_what_can_not_be_compared_is_named(source: str, culprit: str) -> None:
    """So that one sees why the calls of a function aren't remembered."""
    found = functions.Identity(define(source))
    assert not found.memo
    assert found.culprit is not None
    import re  # noqa: PLC0415

    assert re.search(culprit, found.culprit), found.culprit


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("import threading\nlock = threading.Lock()\ndef f(x): return lock", "`lock`, which __main__:f names"),
        (
            "import threading\nlock = threading.Lock()\ndef g(): return lock\ndef f(x): return g()",
            "`lock`, which __main__:g names",
        ),
        (
            "from contextvars import ContextVar\nclass A:\n  state = ContextVar('s')\ndef f(x): return A",
            "`state`, an attribute of __main__:A",
        ),
        (
            "def m(k):\n  def f(x): return k\n  return f\nf = m(__import__('threading').local())",
            "`k`, which __main__:m.<locals>.f names",
        ),
        ("import threading\ndef f(x, lock=threading.Lock()): return lock", "`lock`, a default of __main__:f"),
    ],
    ids=["a global", "a helper's global", "a class's attribute", "a cell", "a default"],
)
def test_what_can_not_be_pickled_is_named(source: str, where: str) -> None:
    """The error says what it is, and where it is named."""
    with pytest.raises(EncodingError, match="can't be pickled") as caught:
        Cache().describe(define(source))
    assert where in str(caught.value)


def test_what_a_stub_stands_for_does_not_prevent_memory() -> None:
    """A function that names a future of ours is the same function with another one."""

    def made() -> bytes:
        fn = define("def f(x): return k")
        fn.__globals__["k"] = [JobFuture(lambda _: False)]
        assert Identity(fn).memo
        return identity(fn)

    assert made() == made()


def test_slot_names_that_pickling_notes_do_not_count() -> None:
    """The first pickle of an object leaves a note in its class."""
    fn = define("class C:\n  def __init__(s): s.a = 1\nk = C()\ndef f(x): return C, k")
    before = identity(fn)
    fn.__globals__["k"].__reduce_ex__(2)
    assert "__slotnames__" in vars(fn.__globals__["C"])
    assert identity(fn) == before


@pytest.mark.parametrize(
    ("fn", "named"),
    [
        (define("def f(x): return x"), True),
        (define("import functools\n@functools.cache\ndef f(x): return x"), True),
        (functools.partial(int, base=2), False),
        (define("def m():\n  def f(x): return x\n  return f\nf = m()"), False),
        (define("f = lambda x: x"), False),
        (define("class A:\n  def m(self): return 1\nf = A().m"), False),
    ],
    ids=["function", "cached", "partial", "closure", "lambda", "method"],
)
def test_which_functions_have_versions(fn: Any, named: bool) -> None:
    """Partials, closures, lambdas and methods of one name aren't versions of each other."""
    assert Cache().describe(fn).named is named


def test_compiled_functions_are_compared_by_their_source() -> None:
    """Numba's pickles differ from process to process; what is compiled and how doesn't."""
    pytest.importorskip("numba")
    plain = "import numba\n@numba.njit\ndef f(x): return x + {}"
    one, same, other = (define(plain.format(n)) for n in (1, 1, 2))
    assert identity(one) == identity(same) != identity(other)
    assert identity(define("import numba\n@numba.njit(fastmath=True)\ndef f(x): return x + 1")) != identity(one)
    helper = "import numba\n@numba.njit\ndef g(x): return x + {}\ndef f(x): return g(x)"
    assert (
        identity(define(helper.format(1))) == identity(define(helper.format(1))) != identity(define(helper.format(2)))
    )
    cache = Cache()
    assert cache.describe(one) is cache.describe(one)
    assert cache.describe(one).named


def test_a_decorator_of_an_importable_function_counts_as_before(module: types.ModuleType) -> None:
    """What travels by name isn't pickled: a lock among its module's globals is nobody's business."""
    found = functions.Identity(module.decorated)
    assert found.memo, found.culprit
    module.K = 2  # type: ignore[attr-defined]
    assert functions.Identity(module.decorated).parts != found.parts


# Imported code


MODULE = """
import functools, threading
K, lock = 1, threading.Lock()
def d(g):
    @functools.wraps(g)
    def w(x): return g(x)
    return w
@d
def decorated(x): return lock and K
def f(x): return x * 2
class A:
    def m(self, x): return 1
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "an_edited_module.py").write_text(MODULE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("an_edited_module")
    del sys.modules["an_edited_module"]


EDITS = {
    "function": (lambda m: m.f, "x * 2", "x * 3"),
    "partial": (lambda m: functools.partial(m.f, 1), "x * 2", "x * 3"),
    "decorated": (lambda m: m.decorated, "lock and K", "lock and -K"),
    "method": (lambda m: m.A().m, "return 1", "return 2"),
    "class": (lambda m: m.A, "return 1", "return 2"),
    "a default": (lambda m: m.f, "f(x)", "f(x, y=1)"),
}


@pytest.mark.parametrize(("pick", "old", "new"), EDITS.values(), ids=EDITS)
def test_a_stale_module_runs_nothing(module: types.ModuleType, pick: Any, old: str, new: str) -> None:
    """Code that was imported before a change isn't taken for the changed code; a fresh process has that."""
    before = Cache().describe(pick(module))
    path = Path(str(module.__file__))
    path.write_text(MODULE.replace(old, new))
    importlib.reload(module)
    after = Cache().describe(pick(module))
    assert before.identity != after.identity
    assert before.digest != after.digest
    load(after)
    for fresh, error in ((False, FunctionOutdated), (True, FunctionUnavailable)):
        with pytest.raises(error):
            load(before, fresh=fresh)


def load(record: functions.Function, *, fresh: bool = True) -> Any:
    return Loader().load(record.codec, record.body, record.python, fresh=fresh)


def test_values_may_differ_from_process_to_process(module: types.ModuleType) -> None:
    """Such as a default that is a time: a fresh process is asked for, and then it is as it is."""
    path = Path(str(module.__file__))
    path.write_text(MODULE + "import time\ndef g(x, t=time.perf_counter()): return x\n")
    importlib.reload(module)
    record = Cache().describe(module.g)
    importlib.reload(module)
    with pytest.raises(FunctionOutdated):
        load(record, fresh=False)
    assert load(record)[0] is module.g


def test_docstrings_and_lines_of_imported_code_do_not_count(module: types.ModuleType) -> None:
    """An edit that changes nothing that is computed leaves the record what it is."""
    record = Cache().describe(module.f)
    Path(str(module.__file__)).write_text(MODULE.replace("def f(x):", "\n\ndef f(x):\n    'Doc.'\n   "))
    importlib.reload(module)
    assert Cache().describe(module.f).digest == record.digest
    load(record, fresh=False)


def test_code_is_not_compared_across_versions_of_python(module: types.ModuleType) -> None:
    """Bytecode differs; what travels by name may run anywhere."""
    record = Cache().describe(module.f)
    name, _ = record.body.split(b"\n")
    other = name + b"\n" + b"00" * 16 + b" " + b"operands ".hex().encode() + b"11" * 16
    with pytest.raises(FunctionUnavailable):
        Loader().load(record.codec, other, functions.PYTHON)
    assert Loader().load(record.codec, other, "2.7")[0] is module.f


def test_records_of_older_versions_load() -> None:
    """They don't say what the imported code was."""
    import json  # noqa: PLC0415
    import pickle  # noqa: PLC0415

    assert Loader().load("import", b"json:dumps", functions.PYTHON)[0] is json.dumps
    old = pickle.dumps((pickle.dumps(functools.partial(json.dumps, indent=1)), b""), protocol=5)
    assert Loader().load("pickle", old, functions.PYTHON)[0]([1]) == "[\n 1\n]"


# What can be imported elsewhere


def by_file(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def test_a_module_that_is_not_found_again_goes_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole, with what its functions name; and by name again as soon as it is found."""
    (tmp_path / "only_in_a_file.py").write_text(
        "K = 3\nclass A: pass\ndef g(x): return K * x\ndef f(x): return A, g(x)\n"
    )
    made = by_file(tmp_path / "only_in_a_file.py", "only_in_a_file")
    try:
        assert not imports.importable(made.f)
        record = Cache().describe(made.f)
        assert record.codec == functions.PICKLE
        kind, value = load(record)[0](2)
        assert (kind.__name__, value) == ("A", 6)
        monkeypatch.setattr(made, "K", 4)
        assert Cache().describe(made.f).identity != record.identity
        outer = define("def f(x): return m.g(x)", m=made)
        assert load(Cache().describe(outer))[0](2) == 8, "the module itself is one of its globals"
        monkeypatch.syspath_prepend(str(tmp_path))
        assert imports.importable(made.f)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "only_in_a_file.py").write_text("def f(x): return 'another one'\n")
        monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
        assert not imports.importable(made.f), "another file is found under its name"
    finally:
        del sys.modules["only_in_a_file"]


@pytest.mark.parametrize("thing", ["json:dumps", "os.path:join", "builtins:len", "collections:OrderedDict", "math:sin"])
def test_modules_that_are_found(thing: str) -> None:
    """Whatever is installed, built in or frozen goes by its name."""
    found = functions.resolve(thing)
    assert imports.importable(found)


IMPORTLIB = """
from workerbee.wire import imports

def helper(x):
    return x

def test_it():
    assert not imports.importable(helper)
    from tests.unit.test_identity import load
    from workerbee.wire.functions import Cache
    assert load(Cache().describe(helper))[0](3) == 3
"""


def test_under_pytest_s_importlib_mode(tmp_path: Path) -> None:
    """A test module that was loaded from its file goes by value."""
    (tmp_path / "test_by_importlib.py").write_text(IMPORTLIB)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"),
            *(f"--rootdir={tmp_path}", str(tmp_path)),
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_record_is_described_in_any_thread() -> None:
    """The caches of code are shared by all."""
    fn = define("def f(x): return x")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(identity(fn))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


@pytest.mark.parametrize("what", ["path", "meta_path"])
def test_a_path_that_a_job_has_emptied_makes_no_library_travel(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What is installed is found everywhere, by its name alone; what only was beside a script goes by value then."""
    module = types.ModuleType("beside_a_script")
    file = Path(__file__).with_name("beside_a_script.py")
    module.__spec__ = importlib.util.spec_from_file_location(module.__name__, file)
    renamed = types.ModuleType("another_name")
    renamed.__spec__ = importlib.util.find_spec("json.decoder")
    for made in (module, renamed):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setattr(imports, "_looked", {})
    monkeypatch.setattr(sys, what, [])
    for name in ("json", "json.decoder", "workerbee.pickling", "cloudpickle.cloudpickle", "psycopg2.sql"):
        assert not imports.by_value(name), name
    for made in (module, renamed):
        assert imports.by_value(made.__name__)
