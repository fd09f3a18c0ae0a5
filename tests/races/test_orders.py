"""Some hundreds of the orders and meetings that ``python -m tests.races`` plays exhaustively, others each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import pytest

from tests.races.moments import PAIRS, STATES, meet
from tests.races.stage import SCRIPTS, TRIOS, Stage, orders, play, stage
from tests.servers import Server

EACH = 84  # orders of each of the six pairs of scripts
THREES = 25  # and of each of the six trios
MEETINGS = 150


@pytest.fixture(scope="module")
def here(server: Server) -> Iterator[Stage]:
    """The stage, in a database of its own."""
    database = server.new_database()
    with stage(database.dsn) as built:
        yield built
    database.drop()


@pytest.mark.parametrize("name", SCRIPTS)
def test_orders_of_steps(here: Stage, name: str) -> None:
    """Whatever the order of two actors' steps: one outcome each, nothing lost, doubled or miscounted."""
    every = list(orders(*SCRIPTS[name]))
    assert len(every) == 12_870
    for order in random.sample(every, EACH):
        play(here, order)


@pytest.mark.parametrize("name", TRIOS)
def test_orders_of_three(here: Stage, name: str) -> None:
    """The same with three actors: who cancels, who submits again, who claims, rescues and completes."""
    every = list(orders(*TRIOS[name]))
    assert len(every) == 1_680
    for order in random.sample(every, THREES):
        play(here, order)


def test_statements_that_meet(here: Stage) -> None:
    """A statement that begins while another is under way waits, and then sees the truth, also if that fails."""
    meetings = list(product(STATES, PAIRS, (True, False)))
    for state, pair, commits in random.sample(meetings, MEETINGS):
        meet(here, state, pair, commits=commits)
