"""User code that a client runs: in order, and never held up by what came before."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from tests.waiting import eventually
from workerbee.client.dispatcher import Dispatcher


def test_tasks_are_run_in_their_order_by_one_thread() -> None:
    """As long as none is held up."""
    dispatcher, done = Dispatcher(), []
    for n in range(1000):
        dispatcher.put(partial(done.append, n))
    dispatcher.close()
    assert done == list(range(1000))


def test_what_is_held_up_holds_up_nobody() -> None:
    """A task that waits for a later one, and one that waits for ever, are left to threads of their own."""
    dispatcher, later, for_ever = Dispatcher(), threading.Event(), threading.Event()
    done: list[int] = []
    dispatcher.put(lambda: done.append(later.wait(60)))
    dispatcher.put(lambda: done.append(for_ever.wait(60)))
    dispatcher.put(later.set)

    def looked() -> bool:
        dispatcher.tend()
        return len(done) == 1

    eventually(looked)
    for_ever.set()
    dispatcher.close()
    assert done == [True, True]


def test_the_end_waits_for_all_that_was_put() -> None:
    """Also for what is held up while it waits; and what comes later is run at once."""
    dispatcher, done = Dispatcher(), []
    for n in range(4):
        dispatcher.put(partial(time.sleep, 0.25))
        dispatcher.put(partial(done.append, n))
    dispatcher.close()
    assert sorted(done) == [0, 1, 2, 3]
    dispatcher.put(partial(done.append, 4))
    assert done[-1] == 4
    dispatcher.close()


@pytest.mark.parametrize("leaving", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nothing_ends_it(leaving: type[BaseException]) -> None:
    """Whatever a task raises."""

    def leave() -> None:
        raise leaving

    dispatcher, done = Dispatcher(), []
    for n in range(3):
        dispatcher.put(leave)
        dispatcher.put(partial(done.append, n))
    dispatcher.close()
    assert done == [0, 1, 2]


def test_a_task_knows_that_it_is_one() -> None:
    """Who is called back can't wait for the end of it all."""
    dispatcher, said = Dispatcher(), []
    assert not dispatcher.is_caller()
    dispatcher.put(lambda: said.append(dispatcher.is_caller()))
    dispatcher.close()
    assert said == [True]
