"""A job's future: what others wait on is made when somebody looks, and no look may come too late."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import as_completed, wait
from typing import Any

import pytest

from workerbee.client.futures import _OBSERVING, JobFuture

N = 2000


def future() -> JobFuture:
    return JobFuture(lambda _: False)


@pytest.mark.parametrize("begun", [False, True], ids=["pending", "running"])
def test_a_future_that_nobody_waits_for_makes_nothing_to_wait_on(begun: bool) -> None:
    """Of many futures most end before anybody looks."""
    ours = future()
    if begun:
        ours.begin()
    ours.resolve(7, None)
    assert ours.result() == 7
    assert "_condition" not in vars(ours)


def look(ours: JobFuture, how: str) -> Any:
    if how == "as_completed":
        return next(as_completed([ours], 60)).result()
    if how == "wait":
        return wait([ours], 60).done.pop().result()
    if how == "callback":
        ended = threading.Event()
        ours.add_done_callback(lambda _: ended.set())
        assert ended.wait(60)
    return ours.result(60)


@pytest.mark.parametrize("how", ["result", "as_completed", "wait", "callback"])
def test_who_looks_while_it_ends_hears_of_it(how: str) -> None:
    """Whichever is first, the look or the end."""
    futures = [future() for _ in range(N)]
    start = threading.Barrier(2)

    def resolve() -> None:
        start.wait()
        for n, ours in enumerate(futures):
            ours.resolve(n, None)

    resolver = threading.Thread(target=resolve)
    resolver.start()
    start.wait()
    assert [look(ours, how) for ours in futures] == list(range(N))
    resolver.join()


def test_the_first_end_counts() -> None:
    """As long as nobody has looked, too."""
    ours = future()
    ours.resolve(None, KeyError("x"))
    ours.resolve(7, None)
    ours.begin()
    assert isinstance(ours.exception(), KeyError)
    assert ours.done()


def test_an_unseen_future_runs_until_it_ends() -> None:
    """Its state is what a `Future` says, looked at or not."""
    ours = future()
    ours.begin()
    assert ours.running()
    assert not ours.done()


def ask(ours: JobFuture) -> None:
    assert ours.running()


def test_a_forked_child_can_ask() -> None:
    """Also when another thread was just ending a future."""
    ours, held = future(), threading.Event()
    ours.begin()

    def hold() -> None:
        with _OBSERVING:
            held.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = multiprocessing.get_context("fork").Process(target=ask, args=(ours,))
    child.start()
    holder.join()
    child.join(20)
    child.kill()
    child.join()
    assert child.exitcode == 0


def ask_within(ours: JobFuture) -> None:
    with _OBSERVING:
        ask(ours)


def test_what_interrupts_a_look_can_look() -> None:
    """A signal's handler and a finalizer run in a thread that may just be looking at another future."""
    ours = future()
    ours.begin()
    child = multiprocessing.get_context("fork").Process(target=ask_within, args=(ours,))
    child.start()
    child.join(20)
    child.kill()
    child.join()
    assert child.exitcode == 0
