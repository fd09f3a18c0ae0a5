"""Many closures and partials of the same code: each is what it would be alone, and costs little more than its own."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest

from workerbee.errors import PayloadTooLargeError
from workerbee.wire import stems
from workerbee.wire.functions import Cache, Loader

#: As a notebook would: ``make(i)`` gives one of many. Each is called without arguments.
MAKERS = {
    "closure": "k = {'a': [1]}\ndef helper(i): return i + k['a'][0]\ndef make(i):\n  return lambda: helper(i)",
    "partial": "k = [5]\ndef body(i): return i, k\nmake = lambda i: partial(body, i)",
    "partial of a partial": "def body(i, j): return i, j\nmake = lambda i: partial(partial(body, i), i + 1)",
    "partial of a closure": "def make(i):\n  def call(j): return i, j\n  return partial(call, 7)",
    "keywords": "def body(*, i): return i\nmake = lambda i: partial(body, i=[i])",
    "default": "make = lambda i: lambda j=i, *, k=(i,): (j, k)",
    "recursion": "def count(i): return 1 + count(i - 1) if i else 0\nmake = lambda i: partial(count, i)",
    "recursion in a cell": "def make(i):\n  def call(n=i): return 1 + call(n - 1) if n else i\n  return call",
    "mutual recursion": "def a(i): return b(i - 1) if i else 0\ndef b(i): return a(i)\nmake = lambda i: partial(a, i)",
    "function in a cell": "def helper(i): return i\ndef make(i):\n  g = helper\n  return lambda: (g(i), helper(i))",
    "global in a cell": "k = [1]\ndef make(i):\n  j = k\n  return lambda: (j is k, i)",
    "global as argument": "k = [1]\ndef body(j, i): return j is k, i\nmake = lambda i: partial(body, k, i)",
    "inner lambda": "k = 3\nmake = lambda i: lambda: (lambda: (i, k))()",
    "class": "class A:\n  n = 2\ndef make(i):\n  return lambda: A().n + i",
    "local class": "def make(i):\n  class A:\n    n = i\n  return lambda: A.n",
    "method": "class A:\n  def __init__(s, i): s.i = i\n  def get(s): return s.i\nmake = lambda i: A(i).get",
    "dispatcher": (
        "from functools import singledispatch\n@singledispatch\ndef of(x): return 'any'\n"
        "@of.register\ndef _(x: int): return x\ndef make(i):\n  return lambda: of(i)"
    ),
    "cached helper": "import functools\n@functools.cache\ndef helper(i): return i\nmake = lambda i: lambda: helper(i)",
    "set and bytearray": "s, b = {1}, bytearray(b'x')\nmake = lambda i: lambda: (s, b, i)",
    "annotation": "class T: pass\ndef make(i):\n  def call(x: 'T' = i): return x\n  return call",
    "attribute": "def make(i):\n  def call(): return i\n  call.note = i\n  return call",
    "large cell": "def make(i):\n  data = [i] * 1000\n  return lambda: data",
    "missing global": "def make(i):\n  return lambda: i if i >= 0 else missing",
}


def session(source: str) -> dict[str, Any]:
    space = {"__name__": "__main__", "partial": functools.partial}
    exec(compile(dedent(source), "<a cell>", "exec"), space)
    return space


def result(body: bytes) -> Any:
    """What the function of a record returns in a runner of its own."""
    return Loader().load("pickle", body, ".".join(map(str, sys.version_info[:2])))[0]()


@pytest.mark.parametrize("source", MAKERS.values(), ids=MAKERS)
def test_each_of_many_is_what_it_is_alone(source: str) -> None:
    """Its identity, whether its calls are remembered, and what a runner makes of it."""
    make = session(source)["make"]
    cache = Cache()
    for i in range(6):
        fn = make(i)
        among, alone = cache.describe(fn), Cache().describe(fn)
        assert (among.identity, among.memo, among.name) == (alone.identity, alone.memo, alone.name)
        assert result(among.body) == result(alone.body) == fn()


#: What a session changes between two of many that were made before, and what its function ``see`` looks at.
CHANGES = {
    "number": ("k = 1\nsee = lambda: k", "k = 2"),
    "dict in place": ("k = {'a': {'b': 1}}\nsee = lambda: k['a']", "k['a']['b'] = 2"),
    "list in place": ("k = [1]\nsee = lambda: k[-1]", "k.append(2)"),
    "order": ("k = {'a': 1, 'b': 2}\nsee = lambda: list(k)", "k['a'] = k.pop('a')"),
    "list in a tuple": ("k = ([1],)\nsee = lambda: k[0]", "k[0].append(2)"),
    "two that become one": ("k = {'a': [1], 'b': [1]}\nsee = lambda: k['a'] is k['b']", "k['b'] = k['a']"),
    "set": ("k = {1}\nsee = lambda: sorted(k)", "k.add(2)"),
    "bytearray": ("k = bytearray(b'a')\nsee = lambda: bytes(k)", "k += b'b'"),
    "helper": ("def h(): return 1\nsee = lambda: h()", "def h(): return 2"),
    "helper's code": ("def h(): return 1\nsee = lambda: h()", "h.__code__ = (lambda: 2).__code__"),
    "helper's default": ("def h(x=1): return x\nsee = lambda: h()", "h.__defaults__ = (2,)"),
    "helper's default in place": ("def h(x=[1]): return x\nsee = lambda: h()", "h.__defaults__[0].append(2)"),
    "helper's keyword": ("def h(*, x=1): return x\nsee = lambda: h()", "h.__kwdefaults__['x'] = 2"),
    "helper's attribute": ("def h(): return h.x\nh.x = 1\nsee = lambda: h()", "h.x = 2"),
    "helper's new attribute": ("def h(): return getattr(h, 'x', 1)\nsee = lambda: h()", "h.x = 2"),
    "helper's cell": (
        "def m(n=1):\n  def h(): return n\n  def up():\n    nonlocal n\n    n=2\n  return h, up\nh, up=m()\nsee = h",
        "up()",
    ),
    "helper's helper's global": ("k = 1\ndef g(): return k\ndef h(): return g()\nsee = lambda: h()", "k = 2"),
    "new global": ("see = lambda: k if 'k' in globals() else 1", "k = 2"),
    "class attribute": ("class A: n = 1\nsee = lambda: A.n", "A.n = 2"),
    "new class attribute": ("class A: pass\nsee = lambda: getattr(A, 'n', 1)", "A.n = 2"),
    "method": ("class A:\n  def n(self): return 1\nsee = lambda: A().n()", "A.n = lambda self: 2"),
    "object": ("class A: pass\na = A()\na.n = 1\nsee = lambda: a.n", "a.n = 2"),
    "slots": ("class A: __slots__ = 'n'\na = A()\na.n = 1\nsee = lambda: a.n", "a.n = 2"),
    "partial's keywords": ("p = partial(dict, a=1)\nsee = lambda: p()", "p.keywords['a'] = 2"),
    "partial's list": ("p = partial(list, [1])\nsee = lambda: p()", "p.args[0].append(2)"),
    "array": ("import array\na = array.array('i', [1])\nsee = lambda: a[0]", "a[0] = 2"),
    "dispatcher": (
        "from functools import singledispatch\nof = singledispatch(lambda x: 1)\nsee = lambda: of(0)",
        "of.register(int, lambda x: 2)",
    ),
    "named by an annotation": (
        "k = [1]\ndef see(x: 'k' = 0): return globals()['k']",
        "k.append(2)",
    ),
    "named by text": ("k = [1]\ndef see():\n  name = '__main__'\n  return globals()['k']", "k.append(2)"),
    "gone": ("k = 1\ndef see():\n  try: return k\n  except NameError: return 2", "del k"),
}


@pytest.mark.parametrize(
    "many", ["lambda i: lambda: (i, see())", "lambda i: partial(call, i)"], ids=["cell", "argument"]
)
@pytest.mark.parametrize(("before", "change"), CHANGES.values(), ids=CHANGES)
def test_what_changes_between_two_of_many_is_seen(before: str, change: str, many: str) -> None:
    """As it would be if each were pickled by itself: in place or not, a global or deep in what it names."""
    space = session(f"{before}\ndef call(i): return i, see()\nmake = {many}")
    cache = Cache()
    for i in range(4):
        cache.describe(space["make"](i))
    was = result(cache.describe(space["make"](4)).body)
    exec(change, space)
    for i in range(5, 9):
        fn = space["make"](i)
        among, alone = cache.describe(fn), Cache().describe(fn)
        assert among.identity == alone.identity
        assert result(among.body) == result(alone.body) != (i, was[1])


def test_none_of_many_brings_what_another_holds() -> None:
    """What one has in its cells, defaults and attributes isn't in the others' records."""
    space = session("def make(i):\n  def call(x=f'default {i}'): return f'cell {i}', i\n  return call")
    cache = Cache()
    bodies = []
    for i in range(5):
        fn = space["make"](1000 + i)
        fn.note = f"attribute {1000 + i}"
        bodies.append(cache.describe(fn).body)
    for i, body in enumerate(bodies):
        assert all((f"default {1000 + j}".encode() in body) == (i == j) for j in range(5))
        assert all((f"attribute {1000 + j}".encode() in body) == (i == j) for j in range(5))


def test_the_limit_holds_for_each_of_many() -> None:
    """With what they have in common."""
    space = session("k = 'x' * 5000\ndef make(i):\n  data = 'y' * i\n  return lambda: (k, data)")
    cache = Cache(max_payload=20_000)
    for i in range(4):
        cache.describe(space["make"](1000 + i))
    with pytest.raises(PayloadTooLargeError):
        cache.describe(space["make"](16_000))


def calls_of(action: Callable[[], object]) -> int:
    n = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal n
        n += event == "call"

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return n


@pytest.mark.parametrize("many", ["lambda i: lambda: (i, *helpers)", "lambda i: partial(call, i)"])
def test_another_one_costs_little_more_than_its_own(many: str) -> None:
    """Whatever its code names: fifty helpers and a table are looked through once."""
    helpers = "\n".join(f"def h{n}(x): return x + k['a'] + {n}" for n in range(50))
    names = ", ".join(f"h{n}" for n in range(50))
    space = session(
        f"k = {{'a': 1}}\n{helpers}\ndef call(i): return i, {names}\nmake = {many.replace('*helpers', names)}"
    )
    cache = Cache()
    first, *_, later = [calls_of(lambda i=i: cache.describe(space["make"](i))) for i in range(6)]  # type: ignore[misc]
    assert first > 20 * later


def test_what_is_kept_of_code_is_bounded() -> None:
    """Endless new code, as a session that is edited makes it, doesn't fill the memory."""
    cache = Cache()
    for n in range(stems.MOST + 40):
        make = session(f"make = lambda i: lambda: i + {n}")["make"]
        for i in range(3):
            cache.describe(make(i))
    assert len(cache._stems._known) == stems.MOST


def test_large_tables_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """They aren't read through for each of many only to see that they are as they were."""
    monkeypatch.setattr(stems, "MOST_BYTES", 5000)
    space = session("k = list(range(5000))\nmake = lambda i: lambda: (i, len(k))")
    cache = Cache()
    for i in range(3):
        cache.describe(space["make"](i))
    [known] = cache._stems._known.values()
    assert known.grown is None
