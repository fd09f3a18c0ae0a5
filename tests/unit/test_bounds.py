"""Functions come by the thousand, and some are large: nobody keeps them all."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any
from uuid import UUID

import pytest

from tests.unit.test_functions import define, nth
from workerbee.bee.tasks import Record, Records
from workerbee.bee.work import Work
from workerbee.client import registry
from workerbee.wire import functions
from workerbee.wire.functions import Cache
from workerbee.wire.job import FunctionRow
from workerbee.wire.signing import Key, Signer

JOBSET = UUID(int=7)


def test_a_client_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large functions the last ones; even one that is larger than all the room."""
    monkeypatch.setattr(functions, "MOST_BYTES", 1_000_000)
    cache = Cache()
    for n in range(30):
        fn = functools.partial(nth, bytes([n]) * 100_000)
        assert cache.describe(fn) is cache.describe(fn)
        assert sum(len(described[2].body) for described in cache._known.values()) <= 1_000_000
    assert len(cache._known) == 9
    large = functools.partial(nth, bytes(2_000_000))
    assert cache.describe(large) is cache.describe(large)
    assert len(cache._known) == 1
    for _ in range(3):
        cache.describe(functools.partial(nth, b"small"))
    assert cache._size == sum(len(described[2].body) for described in cache._known.values())


def test_a_bee_keeps_so_many_records() -> None:
    """Those that were used last, and says which had to go."""
    kept = Records(most=3, size=1000)

    def record(size: int) -> Record:
        return Record("", (0, b"", "", "", bytes(size)), 0.0)

    assert [kept.keep((1, n), record(10)) for n in range(4)] == [[], [], [], [(1, 0)]]
    assert kept.get((1, 1)) is not None
    assert kept.keep((1, 4), record(10)) == [(1, 2)], "the one that was used just now stays"
    assert kept.keep((1, 5), record(985)) == [(1, 3), (1, 1)]
    assert kept.get((1, 5)) is not None
    assert kept.keep((1, 6), record(5000)) == [(1, 4), (1, 5)]
    assert kept.get((1, 6)) is not None


def test_a_runner_forgets() -> None:
    """What it is told to, record and function, and learns it again when it is needed again."""
    key = Key(bytes(32))
    made = Cache().describe(define("def m(k):\n  def f(): return k\n  return f\nf = m([1])"))
    mac = Signer(key, JOBSET).sign_function(made.codec, made.digest, made.body)
    record = FunctionRow(3, made.digest, made.name, made.codec, made.body, made.python, mac)
    work = Work(JOBSET, key)
    for _ in range(2):
        work.learn(3, record)
        function: Any = work.load(3)[0]
        assert function() == [1]
        there = weakref.ref(function)
        work.forget(3)
        del function
        gc.collect()
        assert there() is None
        assert not work.records


def test_many_functions_go_in_few_statements() -> None:
    """As many in each as it may carry."""
    made = Cache().describe(nth)
    several = [made._replace(body=bytes(size)) for size in (10, 2_000_000, 10, 500_000, 500_001, *[1] * 250)]
    portions = [len(portion) for portion in registry._portions(several)]
    assert portions == [1, 1, 2, 200, 51]
