"""The lines of functions that no file has."""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from textwrap import dedent
from types import FunctionType
from typing import Any, cast

import pytest

from tests import jobs
from workerbee.wire import sources
from workerbee.wire.functions import Cache, Loader
from workerbee.wire.sources import excerpt

_numbers = count()


@pytest.fixture
def enter() -> Iterator[Callable[..., FunctionType]]:
    """Enters code as a shell does: under a name of its own, or one that another session uses."""
    entered = []

    def enter(code: str, *, name: str = "", known: bool = True) -> FunctionType:
        file = name or f"<input {next(_numbers)}>"
        entered.append(file)
        space: dict[str, Any] = {"__name__": "__main__"}
        lines = dedent(code).splitlines(keepends=True)
        exec(compile("".join(lines), file, "exec"), space)
        linecache.cache.pop(file, None)
        if known:
            linecache.cache[file] = (len(code), None, lines, file)
        function: FunctionType = space["f"]
        return function

    yield enter
    for file in entered:
        linecache.cache.pop(file, None)
        sources._kept.pop(file, None)


def failure(function: FunctionType, loader: Loader | None = None) -> Callable[[], str]:
    """Loads a function as a runner does, which knows no input; what its traceback says whenever it is called."""
    record = Cache().describe(function)
    linecache.cache.pop(function.__code__.co_filename, None)
    loaded, _ = (loader or Loader()).load(record.codec, record.body, record.python)

    def fail() -> str:
        try:
            loaded()
        except ZeroDivisionError:
            return traceback.format_exc()
        raise AssertionError

    return fail


@pytest.mark.parametrize(
    ("code", "line"),
    {
        "a function": ("def f():\n  return 1 / 0 # here", "return 1 / 0 # here"),
        "its decorator": (
            "def call(g):\n  return lambda: g() # here\n@call\ndef f(): 1 / 0",
            "return lambda: g() # here",
        ),
        "a lambda": ("f = lambda: 1 / 0 # here", "f = lambda: 1 / 0 # here"),
        "an inner function": ("def f():\n  def g():\n    1 / 0 # here\n  g()", "1 / 0 # here"),
        "a closure": ("def m():\n  def f():\n    1 / 0 # here\n  return f\nf = m()", "1 / 0 # here"),
        "another function": ("def g():\n  1 / 0 # here\n\n\ndef f():\n  g()", "1 / 0 # here"),
        "a method": ("class A:\n  def m(self):\n    1 / 0 # here\ndef f():\n  A().m()", "1 / 0 # here"),
        "a property": ("class A:\n  @property\n  def m(self):\n    1 / 0 # here\ndef f():\n  A().m", "1 / 0 # here"),
        "a generator": ("def f():\n  return list(\n    1 / n # here\n    for n in [0]\n  )", "1 / n # here"),
    }.values(),
)
def test_lines_are_shown(enter: Callable[..., FunctionType], code: str, line: str) -> None:
    """Those of whatever the function consists of and calls."""
    assert line in failure(enter(code))()


def test_files_show_their_own_lines() -> None:
    """And nothing is sent of them."""
    assert excerpt(cast("FunctionType", jobs.double)) is None


def test_no_other_lines_are_shown(enter: Callable[..., FunctionType]) -> None:
    """What `exec` has made has the name of the whole; there may be nothing; and too much is too much."""
    enter("\ndef f(): pass", name="<string>")
    assert excerpt(eval("lambda: 1")) is None
    assert excerpt(enter("def f(): pass", known=False)) is None
    assert excerpt(enter("def f():\n" + "  print(0)\n" * 10_000)) is None


def test_lines_that_two_sessions_give_differently_are_not_shown(enter: Callable[..., FunctionType]) -> None:
    """They would be wrong for one; those that are the same are shown."""
    loader = Loader()
    first = failure(enter("def f():\n  g()\ndef g():\n  1 / 0 # one", name="<input>"), loader)
    assert "# one" in first()
    second = failure(enter("def f():\n  g()\ndef g():\n  2 / 0 # two", name="<input>"), loader)
    for text in (first(), second()):
        assert "  g()\n" in text
        assert "# one" not in text
        assert "# two" not in text


def test_they_are_no_part_of_what_tells_functions_apart(enter: Callable[..., FunctionType]) -> None:
    """The same input once more is the same record; with another comment it is the same function."""
    one, same, other = (
        Cache().describe(enter(f"def f(): return 1 # {comment}", name="<input>")) for comment in ("a", "a", "b")
    )
    assert one == same
    assert one.identity == other.identity
    assert one.digest != other.digest


def test_what_is_kept_is_bounded() -> None:
    """A notebook that is used for weeks doesn't fill the memory of runners."""
    sources.keep(sources.Excerpt(f"<input {n}>", 1, ["x\n"]) for n in range(600))
    kept = [file for file in linecache.cache if str(file).startswith("<input ")]
    assert len(kept) == sources.MOST_SOURCES
    for file in kept:
        del linecache.cache[file]
        sources._kept.pop(file)


def test_a_file_of_that_name_here_is_shown(tmp_path: Path) -> None:
    """Rather than what comes from elsewhere."""
    file = tmp_path / "file.py"
    file.write_text("here\n")
    sources.keep([sources.Excerpt(os.fspath(file), 1, ["there\n"])])
    assert linecache.getline(os.fspath(file), 1) == "here\n"
