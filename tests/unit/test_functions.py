"""Functions as records: what makes two the same, when one is described anew, and how they come back."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import operator
import os
import subprocess
import sys
import textwrap
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from workerbee import pickling
from workerbee.errors import EncodingError, FunctionUnavailable
from workerbee.wire import functions
from workerbee.wire.functions import Cache, Loader


def define(source: str, /, **names: Any) -> Any:
    """The function ``f`` of a source, as a notebook or a script would define it."""
    space = {"__name__": "__main__"} | names
    exec(compile(textwrap.dedent(source), "<a notebook's cell>", "exec"), space)
    return space["f"]


def identity(fn: Callable[..., Any], version: str | None = None) -> bytes:
    return Cache().describe(fn, version).identity


def loaded(record: functions.Function, runner: Loader | None = None) -> Callable[..., Any]:
    """The function of a record as a runner has it, a new one if none is given."""
    return (runner or Loader()).load(record.codec, record.body, record.python)[0]


def sent(fn: Callable[..., Any], *initializer: Any, runner: Loader | None = None) -> Callable[..., Any]:
    """The function as a runner has it."""
    return loaded(Cache(*initializer).describe(fn), runner)


# What makes two functions the same

SAME = {
    "a docstring": ("def f(x): return x", 'def f(x):\n    "Says what."\n    return x'),
    "lines and comments": (
        "def f(x): return x + 1",
        "\n\n\ndef f(x):\n    # why\n\n    return (\n        x + 1\n    )",
    ),
    "a local class's place and docstring": (
        "def f(x):\n    class A:\n        y = 1\n    return A.y",
        "\n\ndef f(x):\n\n    class A:\n        'Doc.'\n        y = 1\n    return A.y",
    ),
    "a class's docstring": (
        "class A:\n  y = 1\ndef f(x): return A.y",
        "class A:\n  'Doc.'\n  y = 1\ndef f(x): return A.y",
    ),
    "annotations": ("def f(x): return x", "def f(x: int) -> int: return x"),
    "a global that it doesn't name": ("k = 1\ndef f(x): return x", "k = 2\ndef f(x): return x"),
    "a global with the name of an attribute": ("k = 1\ndef f(x): return x.k", "k = 2\ndef f(x): return x.k"),
    "a helper's docstring": (
        "def g(x): return x\ndef f(x): return g(x)",
        "def g(x): 'Doc.'; return x\ndef f(x): return g(x)",
    ),
}
DIFFERENT = {
    "the name": ("def g(x): return x\nf = g", "def h(x): return x\nf = h"),
    "a constant": ("def f(x): return x + 1", "def f(x): return x + 2"),
    "a constant's type": ("def f(x): return x + 1", "def f(x): return x + 1.0"),
    "a set of constants": ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
    "an operator": ("def f(x): return x + 1", "def f(x): return x - 1"),
    "a method that it calls": ("def f(x): return x.upper()", "def f(x): return x.lower()"),
    "a default": ("def f(x, y=1): return y", "def f(x, y=2): return y"),
    "a default of bytes": ("def f(x, y=b'1'): return y", "def f(x, y=b'2'): return y"),
    "a keyword's default": ("def f(x, *, y=1): return y", "def f(x, *, y=2): return y"),
    "a comparison's sense": ("def f(x): return x in (1, 2)", "def f(x): return x not in (1, 2)"),
    "which is one's own": ("def f(x): return x is None", "def f(x): return x is not None"),
    "the shape of arguments": ("def f(x): return x(1, (2,))", "def f(x): return x((1, 2))"),
    "where the others go": ("def f(x):\n  a, *b, c = x\n  return a", "def f(x):\n  *a, b, c = x\n  return a"),
    "a keyword's name": ("def f(x): return dict(a=x, b=x)", "def f(x): return dict(a=x, c=x)"),
    "one keyword's name": ("def f(x): return x(k=1)", "def f(x): return x(n=1)"),
    "a small number": ("def f(x): return x * 2", "def f(x): return x * 3"),
    "what is raised again": (
        "def f(x):\n  try: x()\n  except KeyError as e: raise ValueError from e",
        "def f(x):\n  try: x()\n  except KeyError as e: raise ValueError",
    ),
    "what is unpacked": ("def f(x): return x(*[1], **{})", "def f(x): return x(*[1])"),
    "how many a pattern takes": (
        "def f(x):\n  match x:\n    case slice(1, 2): return 1",
        "def f(x):\n  match x:\n    case slice(1): return 1",
    ),
    "an f-string": ("def f(x): return f'{x!r}'", "def f(x): return f'{x!s}'"),
    "a global's order": ("k = {'a': 1, 'b': 2}\ndef f(x): return k", "k = {'b': 2, 'a': 1}\ndef f(x): return k"),
    "the order of a dict within": (
        "k = [{'a': 1, 'b': 2}]\ndef f(x): return k",
        "k = [{'b': 2, 'a': 1}]\ndef f(x): return k",
    ),
    "a default's order": ("def f(x, y={'a': 1, 'b': 2}): return y", "def f(x, y={'b': 2, 'a': 1}): return y"),
    "an attribute's order": (
        "class A:\n  y = {'a': 1, 'b': 2}\ndef f(x): return A.y",
        "class A:\n  y = {'b': 2, 'a': 1}\ndef f(x): return A.y",
    ),
    "how it is called": ("def f(x, y): return y", "def f(x, /, y): return y"),
    "what a try covers": (
        "def f(x):\n  try:\n    a(x)\n    b(x)\n  except KeyError:\n    pass",
        "def f(x):\n  try:\n    a(x)\n  except KeyError:\n    pass\n  else:\n    b(x)",
    ),
    "a cell": (
        "def m(k):\n  def f(x): return k\n  return f\nf = m(1)",
        "def m(k):\n  def f(x): return k\n  return f\nf = m(2)",
    ),
    "an inner function": (
        "def f(x):\n  def g(): return 1\n  return g()",
        "def f(x):\n  def g(): return 2\n  return g()",
    ),
    "a comprehension": ("def f(x): return [y + 1 for y in x]", "def f(x): return [y + 2 for y in x]"),
    "a global": ("k = 1\ndef f(x): return k", "k = 2\ndef f(x): return k"),
    "a global's type": ("k = 1\ndef f(x): return k", "k = True\ndef f(x): return k"),
    "a tuple of globals": ("k = (1, 2)\ndef f(x): return k", "k = (1, 3)\ndef f(x): return k"),
    "a set of globals": ("k = {1, 'a'}\ndef f(x): return k", "k = {1, 'b'}\ndef f(x): return k"),
    "a global of an inner function": (
        "k = 1\ndef f(x): return (lambda: k)()",
        "k = 2\ndef f(x): return (lambda: k)()",
    ),
    "a global that wasn't there": ("def f(x): return k", "k = None\ndef f(x): return k"),
    "a helper": ("def g(x): return 1\ndef f(x): return g(x)", "def g(x): return 2\ndef f(x): return g(x)"),
    "a helper's helper": (
        "def h(): return 1\ndef g(): return h()\ndef f(x): return g()",
        "def h(): return 2\ndef g(): return h()\ndef f(x): return g()",
    ),
    "a helper's global": (
        "k = 1\ndef g(): return k\ndef f(x): return g()",
        "k = 2\ndef g(): return k\ndef f(x): return g()",
    ),
    "which of two helpers": (
        "a, b = lambda: 1, lambda: 2\ndef f(x): return a, b, a",
        "a, b = lambda: 1, lambda: 2\ndef f(x): return a, b, b",
    ),
    "a recursion's end": (
        "def f(x): return 1 if x < 1 else f(x - 1)",
        "def f(x): return 0 if x < 1 else f(x - 1)",
    ),
    "a mutual recursion": (
        "def g(x): return f(x - 1)\ndef f(x): return x and g(x)",
        "def g(x): return f(x - 2)\ndef f(x): return x and g(x)",
    ),
    "a method of a class": (
        "class A:\n  def m(self): return 1\ndef f(x): return A().m()",
        "class A:\n  def m(self): return 2\ndef f(x): return A().m()",
    ),
    "a class's attribute": ("class A:\n  y = 1\ndef f(x): return A.y", "class A:\n  y = 2\ndef f(x): return A.y"),
    "a base class": (
        "class B:\n  y = 1\nclass A(B): pass\ndef f(x): return A.y",
        "class B:\n  y = 2\nclass A(B): pass\ndef f(x): return A.y",
    ),
    "a property": (
        "class A:\n  @property\n  def y(self): return 1\ndef f(x): return A().y",
        "class A:\n  @property\n  def y(self): return 2\ndef f(x): return A().y",
    ),
    "a cached property": (
        "from functools import cached_property as c\nclass A:\n  @c\n  def y(self): return 1\ndef f(x): return A().y",
        "from functools import cached_property as c\nclass A:\n  @c\n  def y(self): return 2\ndef f(x): return A().y",
    ),
    "a static method": (
        "class A:\n  @staticmethod\n  def y(): return 1\ndef f(x): return A.y()",
        "class A:\n  @staticmethod\n  def y(): return 2\ndef f(x): return A.y()",
    ),
    "the kind of a method": (
        "class A:\n  @staticmethod\n  def y(a=1): return a\ndef f(x): return A.y()",
        "class A:\n  @classmethod\n  def y(a=1): return a\ndef f(x): return A.y()",
    ),
    "a function behind a cache": (
        "import functools\n@functools.cache\ndef f(x): return 1",
        "import functools\n@functools.cache\ndef f(x): return 2",
    ),
    "one of a dispatcher's functions": (
        "import functools\n@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return 1",
        "import functools\n@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return 2",
    ),
    "the type of one of a dispatcher's functions": (
        "import functools\n@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return 2",
        "import functools\n@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: str): return 2",
    ),
    "a decorated function": (
        "def d(g):\n  def w(x): return g(x)\n  return w\n@d\ndef f(x): return 1",
        "def d(g):\n  def w(x): return g(x)\n  return w\n@d\ndef f(x): return 2",
    ),
    "a module of another name": ("import json as m\ndef f(x): return m", "import csv as m\ndef f(x): return m"),
    "a path in a cell": (
        "from pathlib import Path\ndef m(p):\n  return lambda x: p\nf = m(Path('a'))",
        "from pathlib import Path\ndef m(p):\n  return lambda x: p\nf = m(Path('b'))",
    ),
    "an array in a cell": (
        "import numpy as np\ndef m(p):\n  return lambda x: p\nf = m(np.array([1, 2]))",
        "import numpy as np\ndef m(p):\n  return lambda x: p\nf = m(np.array([1, 3]))",
    ),
}


@pytest.mark.parametrize(("before", "after"), SAME.values(), ids=SAME)
def test_what_does_not_count(before: str, after: str) -> None:
    """A change that doesn't change what is computed leaves the function the same."""
    assert identity(define(before)) == identity(define(after))


@pytest.mark.parametrize(("before", "after"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_counts(before: str, after: str) -> None:
    """A change of code, or of what it names, makes another function; the same source, the same."""
    assert identity(define(before)) != identity(define(after))
    assert identity(define(before)) == identity(define(before))


class Scale:
    """A callable object, with a method, whose class can be imported."""

    def __init__(self, factor: Any) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return x * self.factor

    def times(self, x: Any) -> Any:
        return x * self.factor


def nth(n: int, x: Any) -> Any:
    return n, x


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (functools.partial(nth, 1), functools.partial(nth, 1), functools.partial(nth, 2)),
        (functools.partial(nth, x=1), functools.partial(nth, x=1), functools.partial(nth, x=2)),
        (functools.partial(nth, {1, 2}), functools.partial(nth, {2, 1}), functools.partial(nth, {1, 3})),
        (Scale(2), Scale(2), Scale(3)),
        (Scale((1, 2)), Scale((1, 2)), Scale((1, 3))),
        (Scale(2).times, Scale(2).times, Scale(3).times),
        (operator.itemgetter(1), operator.itemgetter(1), operator.itemgetter(2)),
        ("a".join, "a".join, "b".join),
    ],
    ids=["partial", "keyword", "set", "object", "state", "method", "itemgetter", "builtin"],
)
def test_state_counts(one: Any, same: Any, other: Any) -> None:
    """Partials, callable objects and methods are what they call and what they hold."""
    assert identity(one) == identity(same)
    assert identity(one) != identity(other)
    assert Cache().describe(one).memo


def test_a_method_is_its_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of an importable class's method and of its __call__ counts."""
    before = identity(Scale(2)), identity(Scale(2).times)
    changed = define("def f(self, x): return x + self.factor")
    changed.__qualname__ = "Scale.times"
    monkeypatch.setattr(Scale, "times", changed)
    assert identity(Scale(2).times) != before[1]
    monkeypatch.setattr(Scale, "__call__", changed)
    assert identity(Scale(2)) != before[0]


def test_what_can_not_be_compared_is_not_memoised() -> None:
    """State that has no pickle, such as a lock of the bee's own making, makes no two calls the same."""

    class Odd:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError

        def __call__(self) -> None: ...

    found = functions.Identity(Odd())
    assert not found.memo


def test_a_version_stands_for_the_code() -> None:
    """With a version of the user's the code no longer counts; the version does, and so does the name."""
    one, two = define("def f(x): return 1"), define("def f(x): return 2")
    assert identity(one, "1") == identity(two, "1") != identity(one, "2")
    assert identity(one, "1") != identity(one)
    assert Cache().describe(one, "1").digest != Cache().describe(two, "1").digest


SCRIPT = """
import functools, sys
from workerbee.wire.functions import Cache

NAMES = {"b", "a", "c"}
class Thing:
    attributes = frozenset({"x", "y", "z"})
    def __init__(self): self.seen = {"p", "q", "r"}
    def method(self, x): return x in {"d", "e", "f"}
def helper(x): return x in NAMES or x in {"g", "h", "i"}
def function(x, y={"s", "t"}): return helper(x), Thing().method(x)
def maker(k): return lambda x: (k, helper(x))
CASES = [function, maker({"u", "v"}), Thing().method, functools.partial(function, y=frozenset("wxyz"))]
print([Cache().describe(fn).identity.hex() for fn in CASES])
"""


def test_digests_that_left_something_out_are_not_compared() -> None:
    """Jobs that wait from before run; of others it is noticed where the code is another here."""
    digests = [bytes(16), b"operands " + bytes(16)]
    old, new = (f"textwrap:dedent\n{bytes(16).hex()} {whole.hex()}".encode() for whole in digests)
    assert Loader().load(functions.IMPORT, old, functions.PYTHON)[0] is textwrap.dedent
    with pytest.raises(FunctionUnavailable, match="the code of textwrap:dedent is another here"):
        Loader().load(functions.IMPORT, new, functions.PYTHON)


def test_identity_is_the_same_in_every_process(tmp_path: Path) -> None:
    """What makes a function the same doesn't depend on the hash seed, nor on anything else of one process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    outputs = {
        subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(outputs) == 1


def test_a_module_by_value_counts_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that the user has registered to travel by value is compared and sent like a script."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_by_value.py").write_text("K = 1\ndef helper(): return K\ndef f(x): return helper()\n")
    mine_by_value = importlib.import_module("mine_by_value")
    assert Cache().describe(mine_by_value.f).codec == functions.IMPORT
    cloudpickle.register_pickle_by_value(mine_by_value)
    try:
        before = Cache().describe(mine_by_value.f)
        assert before.codec == functions.PICKLE
        monkeypatch.setattr(mine_by_value, "K", 2)
        assert identity(mine_by_value.f) != before.identity
        assert loaded(before)(0) == 1
    finally:
        cloudpickle.unregister_pickle_by_value(mine_by_value)
        del sys.modules["mine_by_value"]


# When a function is described anew


def test_an_unchanged_function_is_described_once() -> None:
    """Describing the same function again gives the very same record."""
    cache = Cache()
    for fn in (define("k = [1]\ndef f(x): return k"), json.dumps, functools.partial(nth, 1), Scale(2)):
        assert cache.describe(fn) is cache.describe(fn)
    scale = Scale(2)
    assert cache.describe(scale.times) is cache.describe(scale.times), "each access makes a new method"


CHANGES: dict[str, Callable[[Any], Any]] = {
    "code": lambda f: setattr(f, "__code__", define("def f(x): return g(x), k, m, 0").__code__),
    "defaults": lambda f: setattr(f, "__defaults__", (1,)),
    "keyword defaults": lambda f: setattr(f, "__kwdefaults__", {"x": 1}),
    "global": lambda f: f.__globals__.update(k=2),
    "uncompared global": lambda f: f.__globals__.update(m=object()),
    "missing global": lambda f: f.__globals__.update(late=1),
    "helper": lambda f: f.__globals__.update(g=define("def f(x): return 2")),
    "helper's code": lambda f: setattr(f.__globals__["g"], "__code__", define("def f(x): return 2").__code__),
    "helper's helper": lambda f: setattr(f.__globals__["h5"], "__code__", define("def f(): return 2").__code__),
    "method": lambda f: setattr(f.__globals__["A"], "m", define("def f(self): return 2")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_function_is_described_anew(change: Callable[[Any], Any]) -> None:
    """Another object in the place of anything that the function depends on makes a new record."""
    fn = define(
        """
        k, m = 1, object()
        class A:
            def m(self): return 1
        def h5(): return 1
        def h4(): return h5()
        def h3(): return h4()
        def h2(): return h3()
        def h1(): return h2()
        def g(x): return h1()
        def f(x): return g(x), k, m, late, A
        """
    )
    cache = Cache()
    before = cache.describe(fn)
    assert cache.describe(fn) is before
    change(fn)
    after = cache.describe(fn)
    assert after is not before
    assert cache.describe(fn) is after


def test_a_changed_cell_is_noticed() -> None:
    """A variable that a closure shares with its maker may be set later."""
    fn, set_k = define(
        """
        def m():
            k = 1
            def g(x): return k
            def s(v):
                nonlocal k
                k = v
            return g, s
        f = m()
        """
    )
    cache = Cache()
    before = cache.describe(fn).identity
    set_k(2)
    assert cache.describe(fn).identity != before


def test_globals_are_compared_by_object() -> None:
    """A global list that is changed in place is the same object: the record stays, as for a pool's workers."""
    fn = define("k = [1]\ndef f(x): return k")
    cache = Cache()
    before = cache.describe(fn)
    fn.__globals__["k"].append(2)
    assert cache.describe(fn) is before
    fn.__globals__["k"] = [1, 2]
    assert cache.describe(fn).identity != before.identity


@pytest.mark.parametrize("hold", [Scale, lambda v: Scale(v).times, lambda v: functools.partial(nth, v)])
def test_what_a_callable_holds_may_change_in_place(hold: Callable[[Any], Any]) -> None:
    """The state of an object, a method or a partial is looked at with each submit, as a pool pickles it."""
    value = [1]
    fn = hold(value)
    cache = Cache()
    before = cache.describe(fn)
    value.append(2)
    after = cache.describe(fn)
    assert after.identity != before.identity
    assert loaded(after)(1) != before


def test_an_attribute_set_later_is_noticed() -> None:
    """Plain attributes are held, so that their replacement is seen."""
    scale = Scale(2)
    cache = Cache()
    before = cache.describe(scale.times).identity
    scale.factor = 3
    assert cache.describe(scale.times).identity != before


def test_an_object_that_names_itself_is_described() -> None:
    """A cycle among the objects of a callable ends."""
    scale = Scale(2)
    scale.itself = (scale,)  # type: ignore[attr-defined]
    cache = Cache()
    assert cache.describe(scale.times) is cache.describe(scale.times)


def test_a_described_object_is_not_kept() -> None:
    """Whoever submits a method of an object may let the object go."""
    scale = Scale(2)
    there = weakref.ref(scale)
    cache = Cache()
    cache.describe(scale.times)
    del scale
    assert there() is None
    assert cache.describe(Scale(3).times).identity != cache.describe(Scale(4).times).identity


def test_a_traceback_names_the_file() -> None:
    """A function that travels by value still knows where it was written."""
    assert sent(define("def f(): raise KeyError")).__code__.co_filename == "<a notebook's cell>"


def test_the_cache_is_bounded() -> None:
    """A stream of ever new functions doesn't fill the memory."""
    cache = Cache()
    for n in range(600):
        cache.describe(functools.partial(nth, n))
    assert len(cache._known) <= 256


# There and back


ROUND_TRIPS: dict[str, Any] = {
    "importable": nth,
    "lambda": define("f = lambda n, x: (n, x)"),
    "closure": define("def m(k):\n  def f(n, x): return k, n, x\n  return f\nf = m({1, 2})"),
    "globals": define("k = {'a': {1}}\ndef g(n): return n, k\ndef f(n, x): return g(n), x"),
    "recursion": define("def f(n, x): return x if n == 0 else f(n - 1, x)"),
    "mutual recursion": define("def g(n, x): return f(n - 1, x)\ndef f(n, x): return g(n, x) if n else x"),
    "class": define("class A:\n  def m(self, n): return n\ndef f(n, x): return A().m(n), x"),
    "cached property": define(
        """
        from functools import cached_property
        class A:
            @cached_property
            def y(self): return self.n
        def f(n, x):
            a = A()
            a.n = n
            return a.y, a.y
        """
    ),
    "cached": define("import functools\n@functools.lru_cache(maxsize=7)\ndef f(n, x): return n, x"),
    "cached recursion": define("import functools\n@functools.cache\ndef f(n, x): return f(n - 1, x) if n else x"),
    "dispatcher": define(
        """
        import functools
        @functools.singledispatch
        def of(x): return "anything"
        @of.register
        def _(x: int): return "int", of([x])
        @of.register
        def _(x: list): return [of("")] * len(x)
        class A:
            @functools.singledispatchmethod
            def m(self, x): return "anything"
            @m.register
            def _(self, x: int): return "int"
        def f(n, x): return of(n), of.__name__, of.__wrapped__(n), of.dispatch(bool)(1), A().m(x), A().m("")
        """
    ),
    "method": define("class A:\n  k = 5\n  def m(self, n, x): return self.k, n, x\nf = A().m"),
    "classmethod": define("class A:\n  k = 5\n  @classmethod\n  def m(c, n, x): return c.k, n, x\nf = A.m"),
    "partial": functools.partial(define("def f(k, n, x): return k, n, x"), 1),
    "callable object": define("class A:\n  def __call__(self, n, x): return n, x\nf = A()"),
    "ufunc": np.add,
    "builtin": max,
}


@pytest.mark.parametrize("fn", ROUND_TRIPS.values(), ids=ROUND_TRIPS)
def test_a_function_comes_back(fn: Callable[..., Any]) -> None:
    """What a runner calls does what the client's function does."""
    assert sent(fn)(3, 4) == fn(3, 4)


#: What is found where a function looks, in bodies of classes or behind descriptors; each is 6.
FOUND = {
    "a global that a class's body names": "k = 6\ndef f(x):\n  class C:\n    a = k\n  return C.a",
    "a helper that a class's body calls": "def k(): return 6\ndef f(x):\n  class C:\n    a = k()\n  return C.a",
    "a property of a class of its own": (
        "class P(property):\n  def __init__(s, g, n): super().__init__(g); s.n = n\n"
        "  def __get__(s, i, o): return s.fget(i) * s.n\n"
        "class C:\n  a = P(lambda s: 2, 3)\ndef f(x): return C().a"
    ),
    "a cached property of a class of its own": (
        "from functools import cached_property as c\nclass P(c):\n"
        "  def __get__(s, i, o): return 2 * c.__get__(s, i, o)\n"
        "class C:\n  @P\n  def a(s): return 3\ndef f(x): return C().a"
    ),
    "a property with slots": (
        "class P(property):\n  __slots__ = '__doc__', 'n'\n  def __get__(s, i, o): return s.fget(i) * s.n\n"
        "p = P(lambda s: 2)\np.n = 3\nclass C:\n  a = p\ndef f(x): return C().a"
    ),
    "a type of its own": ("from typing import NewType\nclass C:\n  N = NewType('N', int)\ndef f(x): return C.N(6)"),
    "parameters of its own": (
        "from typing import Callable, ParamSpec\nclass C:\n  P = ParamSpec('P')\n  n = 6\n"
        "  def m(s, *a: P.args, **k: P.kwargs): return s.n\ndef f(x): return C().m() * (C.P.__name__ == 'P')"
    ),
    "a static method of a class of its own": (
        "class P(staticmethod):\n  def __get__(s, i, o): return lambda: 2 * s.__func__()\n"
        "class C:\n  @P\n  def a(): return 3\ndef f(x): return C.a()"
    ),
}


@pytest.mark.parametrize("source", FOUND.values(), ids=FOUND)
def test_a_function_finds_what_it_finds_here(source: str) -> None:
    fn = define(source)
    assert sent(fn)(0) == fn(0) == 6


def test_versions_of_a_function_do_not_meddle_with_each_other() -> None:
    """Two records that bring different values of one global keep them apart, also in one runner."""
    one = sent(define("k = 1\ndef f(): return k"))
    two = sent(define("k = 2\ndef f(): return k"))
    assert (one(), two()) == (1, 2)


def test_an_initializer_sets_globals_for_all_functions() -> None:
    """What an initializer of a script sets or fills, every function of that script sees; it runs once."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(
        textwrap.dedent(
            """
            data, table, runs = None, {}, __import__("collections").Counter()
            def setup(value):
                global data
                data = [value]
                table["x"] = value
                runs["n"] += 1
            def f(): return data, table, runs
            def g(): return data, table, runs
            """
        ),
        space,
    )
    runner = Loader()
    f = sent(space["f"], space["setup"], (7,), runner=runner)
    g = sent(space["g"], space["setup"], (7,), runner=runner)
    assert f() == g() == ([7], {"x": 7}, {"n": 1})
    assert f()[0] is g()[0]
    assert sent(space["f"], space["setup"], (8,), runner=runner)()[0] == [8], "other arguments are another initializer"
    assert f()[0] == [7]


def test_functions_of_one_module_share_their_globals() -> None:
    """What one of them sets or fills another one finds, also one that comes later, alone or as an argument."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("n, table = 0, {}\ndef up():\n  global n\n  n += 1\n  table[n] = n\ndef f(): return n, table", space)
    runner = Loader()
    up = sent(space["up"], runner=runner)
    up()
    f = sent(space["f"], runner=runner)
    up()
    assert f() == sent(functools.partial(apply, space["f"]), runner=runner)() == (2, {1: 1, 2: 2})
    assert sent(space["f"])() == (0, {}), "another runner's are others"
    assert space["f"]() == (0, {})


MARKED = """
mark, table = object(), {}
def first(): return mark, table
def default(x=mark): return x is mark
def named(*, x=mark): return x is mark
def passed(x=mark): return default(x)
def filled(n, into=table):
    into[n] = n
    return len(table)
class Holder:
    held = mark
    def m(self, x=mark): return x is mark and self.held is mark
def method(): return Holder().m()
def make(kept):
    def inner(): return kept is mark
    return inner
closure = make(mark)
"""


def test_a_global_that_something_else_holds_too_is_one_object() -> None:
    """Defaults, closures and classes of functions that come one by one hold the very global, as in a pool's worker."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(MARKED, space)
    runner = Loader()
    sent(space["first"], runner=runner)
    names = ("default", "named", "passed", "method", "closure")
    assert {name: sent(space[name], runner=runner)() for name in names} == dict.fromkeys(names, True)
    assert [sent(space["filled"], runner=runner)(n) for n in range(2)] == [1, 2]


def test_a_default_stays_when_a_job_makes_the_global_something_else() -> None:
    """A function that comes later has the client's value for its default, as it would have in a pool's worker."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("kept = []\ndef up():\n  global kept\n  kept = 'closed'\ndef f(x=kept): return x", space)
    runner = Loader()
    sent(space["up"], runner=runner)()
    assert sent(space["f"], runner=runner)() == []


RELATED = """
class Model:
    def __init__(self): self.weights = [0]
class Optimizer:
    def __init__(self, weights): self.weights = weights
    def step(self): self.weights[0] += 1
model = Model()
optimizer = Optimizer(model.weights)
def predict(): return model.weights[0]
def state(): return len(optimizer.weights)
def train():
    optimizer.step()
    return model.weights[0], optimizer.weights is model.weights
"""


def test_values_that_hold_one_object_hold_it_in_a_runner_too() -> None:
    """Whatever came before: what a function changes by one of them it finds by the other, and so does the next one."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(RELATED, space)
    runner = Loader()
    assert [sent(space[name], runner=runner)() for name in ("predict", "state")] == [0, 1]
    assert sent(space["train"], runner=runner)() == (1, True)
    assert sent(space["predict"], runner=runner)() == 1
    assert sent(space["train"], runner=runner)() == (2, True)


def apply(fn: Callable[[], Any]) -> Any:
    return fn()


def test_versions_of_a_function_do_not_meet() -> None:
    """Neither a changed global nor changed code touches what was sent before."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("k = [1]\ndef helper(): return k\ndef f(): return helper()", space)
    runner = Loader()
    before = sent(space["f"], runner=runner)
    space["k"] = [2]
    changed = sent(space["f"], runner=runner)
    exec("def helper(): return k * 2", space)
    recoded = sent(space["f"], runner=runner)
    assert (before(), changed(), recoded()) == ([1], [2], [2, 2])


def test_what_a_job_has_set_is_no_value_of_the_clients() -> None:
    """A global that the client defines later is the client's, whatever jobs have made of the name before."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def put():\n  global late\n  late = 5\ndef f(): return late", space)
    runner = Loader()
    f = sent(space["f"], runner=runner)
    sent(space["put"], runner=runner)()
    space["late"] = 7
    assert (f(), sent(space["f"], runner=runner)()) == (5, 7)


def test_globals_that_can_not_be_compared_are_not_shared() -> None:
    """They come with each function, as the client has them."""
    space: dict[str, Any] = {"__name__": "__main__", "odd": Fickle()}
    exec("n = 0\ndef up():\n  global n\n  n += 1\n  return odd\ndef f(): return n, odd", space)
    runner = Loader()
    sent(space["up"], runner=runner)()
    assert sent(space["f"], runner=runner)()[0] == 0


class Fickle:
    """Is pickled differently each time."""

    def __reduce__(self) -> Any:
        return str, (str(next(ticks)),)


ticks = itertools.count()


def test_an_initializer_stays_as_it_was_and_what_it_only_reads_does_not() -> None:
    """It has run; a global that it left alone may change with the functions that are sent later."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("scale, made = 10, None\ndef setup():\n  global made\n  made = scale\ndef f(): return scale, made", space)
    cache, runner = Cache(space["setup"]), Loader()
    assert loaded(cache.describe(space["f"]), runner)() == (10, 10)
    space["scale"] = 20
    assert loaded(cache.describe(space["f"]), runner)() == (20, 10)


def test_what_an_initializer_only_calls_may_change_too() -> None:
    """A helper isn't set by an initializer that changes what the helper reads: an edited one takes its place."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("table = {}\ndef helper(): return 'old', table\ndef setup():\n  helper()[1][1] = 1", space)
    exec("def f(): return helper()", space)
    cache, runner = Cache(space["setup"]), Loader()
    assert loaded(cache.describe(space["f"]), runner)() == ("old", {1: 1})
    exec("def helper(): return 'new', table", space)
    assert loaded(cache.describe(space["f"]), runner)() == ("new", {1: 1})


def test_an_initializer_may_come_from_several_places_of_one_name() -> None:
    """Functions among its arguments have globals of their own, though their module is called the same."""
    setup = define("def f(g):\n  global made\n  made = n, g()", n=1)
    f = define("def f(): return made")
    assert sent(f, setup, (define("def f(): return n", n=2),))() == (1, 2)


def test_a_global_behind_many_helpers_is_pickled_once_and_compared_once() -> None:
    """However many functions lead to it."""
    seen: list[int] = []
    space: dict[str, Any] = {"__name__": "__main__", "counted": Counted(seen)}
    exec("def f0(): return counted", space)
    for n in range(1, 10):
        exec(f"def f{n}(): return f{n - 1}()", space)
    pickling.dumps(space["f9"])
    assert len(seen) == 2


class Counted:
    """Notes that it is pickled."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def __reduce__(self) -> Any:
        self.seen.append(1)
        return list, ()


def test_old_namespaces_are_let_go() -> None:
    """A notebook's many versions don't fill up a runner."""
    runner = Loader()
    for n in range(2 * pickling.MOST_NAMESPACES):
        sent(define("def f(): return big", big={n: n}), runner=runner)
    (namespaces,) = runner._namespaces.values()
    assert [len(spaces) for spaces in namespaces._spaces.values()] == [pickling.MOST_NAMESPACES]


def test_an_initializer_sees_imported_modules() -> None:
    """An importable initializer runs in its own module, once, and later records don't undo what jobs did there."""
    module = types.ModuleType("module_of_an_initializer")
    exec("n = 0\ndef setup():\n  global n\n  n += 1\ndef f(x): return n", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        runner = Loader()
        sent(module.f, module.setup, runner=runner)
        module.n += 10
        assert sent(module.f, module.setup, runner=runner)(0) == 11
    finally:
        del sys.modules[module.__name__]


def test_the_initializer_is_part_of_the_record() -> None:
    """The same function with another initializer is stored as another record, but is the same function."""
    one, two = Cache(nth, (1,)).describe(json.dumps), Cache(nth, (2,)).describe(json.dumps)
    assert one.digest != two.digest
    assert one.identity == two.identity == identity(json.dumps)


def test_a_failing_initializer_raises_each_time() -> None:
    """An initializer that raised hasn't run: no job of its executor is done here."""
    record, runner = Cache(operator.truediv, (1, 0)).describe(json.dumps), Loader()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loaded(record, runner)


def test_what_is_not_callable_is_refused() -> None:
    """A mistake is a TypeError at once."""
    with pytest.raises(TypeError, match="not callable"):
        Cache().describe(3)  # type: ignore[arg-type]


def test_a_function_that_can_not_be_pickled_is_named() -> None:
    """The error says which function, and what to do."""
    fn = define("import threading\ndef m(k):\n  return lambda x: k\nf = m(threading.Lock())")
    with pytest.raises(EncodingError, match=r"function __main__:m.<locals>.<lambda> can't be pickled.*inside the job"):
        Cache().describe(fn)


@pytest.mark.parametrize("name", ["no_such_module_at_all:f", "json:no_such_function", "json:", "json"])
def test_a_function_that_is_not_here_is_left_to_others(name: str) -> None:
    """A missing module or name makes the function unavailable, not the job failed."""
    with pytest.raises(FunctionUnavailable, match="can't be imported here"):
        Loader().load(functions.IMPORT, name.encode(), functions.PYTHON)


def test_by_value_functions_are_for_one_python() -> None:
    """Bytecode of another minor version isn't even unpickled."""
    with pytest.raises(FunctionUnavailable, match=r"stored by Python 2\.7"):
        Loader().load(functions.PICKLE, b"not a pickle", "2.7")


def test_a_record_that_does_not_unpickle_makes_the_function_unavailable() -> None:
    """For instance because a module that it names isn't installed here."""
    with pytest.raises(FunctionUnavailable, match="can't be loaded here"):
        Loader().load(functions.PICKLE, b"cno_such_module\nf\n.", functions.PYTHON)
