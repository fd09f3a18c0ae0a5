"""Some hundreds of the orders and meetings that ``python -m tests.races`` plays exhaustively, others each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from tests.races import modelled
from tests.races.moments import PAIRS, STATES, meet
from tests.races.stage import SCRIPTS, TRIOS, Stage, orders, play, stage
from tests.servers import Database, Server
from workerbee.store import Connection

EACH = 84  # orders of each of the six pairs of scripts
THREES = 25  # and of each of the six trios
MEETINGS = 150
MODELLED = {2: 12, 3: 24}


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


def test_steps_beside_the_model(shared: Database) -> None:
    """Each step of two and of three actors answers as the store's model does, and leaves what it says."""
    with closing(Connection(shared.dsn)) as connection:
        for n_actors, n_orders in MODELLED.items():
            for order in random.sample(list(modelled.every(n_actors)), n_orders):
                modelled.play(connection, order)


def test_orders_beside_the_model_are_all() -> None:
    """Two actors with ten steps, and three, from six beginnings."""
    assert {n: len(set(modelled.every(n))) for n in MODELLED} == {2: 600, 3: 6_000}
