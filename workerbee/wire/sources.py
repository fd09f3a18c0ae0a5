"""The source of functions that isn't in a file: of a notebook's cells, the REPL, ``python -c``.

It travels beside them, so that a traceback shows the lines of a job wherever it has failed. Nothing that tells one
function from another depends on it.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from types import CodeType, FunctionType
from typing import NamedTuple

#: Characters of a function's source, at most: a longer one isn't sent.
LONGEST_CHARS = 64_000
#: Names of code whose lines are kept.
MOST_SOURCES = 256


class Excerpt(NamedTuple):
    """Lines of what a traceback calls ``file``, from line ``first`` on."""

    file: str
    first: int
    lines: list[str]


def _is_file(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 (Path's raises where one may not look)


# Where the function is made


def excerpt(function: FunctionType) -> Excerpt | None:
    """Give the lines of a function; None if they are in a file, or not known here."""
    code = function.__code__
    if _is_file(code.co_filename):
        return None
    first = code.co_firstlineno
    lines = _source(code.co_filename, function)[first - 1 : _last_line(code)]
    text = "".join(lines)
    # What `exec` has made may go by the name of other code.
    is_its_own = code.co_name.strip("<>") in text
    return Excerpt(code.co_filename, first, lines) if lines and is_its_own and len(text) <= LONGEST_CHARS else None


def _source(file: str, function: FunctionType) -> list[str]:
    try:
        lines = linecache.getlines(file, function.__globals__)
    except Exception:  # noqa: BLE001 (a loader may be the user's)
        lines = []
    if not lines and file == "<string>" and sys.argv[:1] == ["-c"]:  # which linecache knows from Python 3.13 on
        lines = sys.orig_argv[-len(sys.argv)].splitlines(keepends=True)
    return lines


def _last_line(code: CodeType) -> int:
    """Find the last line that a traceback could show."""
    if sys.version_info >= (3, 11):
        ends = [end for _, end, _, _ in code.co_positions()]
    else:
        ends = [line for _, _, line in code.co_lines()]
    inner = [_last_line(const) for const in code.co_consts if isinstance(const, CodeType)]
    return max([code.co_firstlineno, *inner, *(end for end in ends if end is not None)])


# Where it fails


_kept: OrderedDict[str, list[str]] = OrderedDict()


def keep(excerpts: Iterable[Excerpt]) -> None:
    """Have tracebacks of this process show these lines, unless a file here has the name.

    Two sessions may give one name to different code. A line that isn't the same in both is shown for neither.
    """
    for file, first, lines in excerpts:
        if _is_file(file):
            continue
        known = _kept.setdefault(file, [])
        known.extend([""] * (first - 1 + len(lines) - len(known)))
        for n, line in enumerate(lines, first - 1):
            known[n] = line if known[n] in ("", line) else "\n"
        linecache.cache[file] = (sum(map(len, known)), None, known, file)
        while len(_kept) > MOST_SOURCES:
            linecache.cache.pop(_kept.popitem(last=False)[0], None)


# Where it is read


def with_cells(text: str) -> str:
    """Make a traceback that calls the cells of this notebook as its user does: ``Cell In[3], line 2``."""
    if "IPython" not in sys.modules:
        return text
    return re.sub(r'(?<=^  )File "([^"\n]+)"(?=, line )', _as_a_cell, text, flags=re.MULTILINE)


def _as_a_cell(file: re.Match[str]) -> str:
    with suppress(Exception):  # no shell runs, or it has no such cell
        return " ".join(sys.modules["IPython"].get_ipython().compile.format_code_name(file[1]))
    return file[0]
