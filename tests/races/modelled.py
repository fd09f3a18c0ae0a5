"""Two and three actors in every order, each step beside the store's model: what it answers, and what the tables say.

An actor is a bee and a client, as on the `stage`; here the model knows what must come of each step, so that nothing has
to be finished before one can judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.store.test_model import Store
from workerbee.store import Connection
from workerbee.wire.job import Options

ALL = 2**20 - 1
#: What an actor does. ``submit_again`` means the run that it saw at the beginning, ``reopen`` the latest one.
STEPS = ("cancel", "stop", "submit_again", "reopen", "claim", "start", "complete", "fail", "rescue", "release")
#: How the play stands before: steps of the actors, by number.
BEGINNINGS: dict[str, tuple[tuple[int, str], ...]] = {
    "jobs wait": (),
    "jobs are cancelled": ((0, "cancel"), (1, "look")),
    "some are held": ((0, "claim"), (1, "look")),
    "whose holder is silent": ((0, "claim"), (1, "fall_silent_first")),
    "some were cancelled while they ran": ((0, "claim"), (1, "stop"), (2, "look")),
    "some ended": ((0, "claim"), (0, "complete"), (1, "fail")),
}


class Play(Store):
    """The model with actors in the places of its dice."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection  # type: ignore[misc]  # Hypothesis makes its own, with one of the class
        self.begin()
        self.submit(3)
        self._seen = [dict(self.latest) for _ in self.bees]

    def act(self, actor: int, step: str) -> None:
        """Take a step, and see that model and tables agree."""
        getattr(self, f"_{step}")(actor)
        self.the_tables_say_the_same()
        self.each_open_run_is_in_one_place()
        self.the_counters_are_true()

    def _look(self, _: int) -> None:
        self._seen = [dict(self.latest) for _ in self.bees]

    def _cancel(self, _: int) -> None:
        self.cancel(ALL, running=False)

    def _stop(self, _: int) -> None:
        self.cancel(ALL, running=True)

    def _reopen(self, _: int) -> None:
        self.reopen(ALL)

    def _submit_again(self, actor: int) -> None:
        """Of a run that isn't the latest any more nothing begins anew."""
        seen = self._seen[actor].items()
        old = [(job, run) for job, run in seen if self.latest[job] != run]
        assert self.hive.client.reopen(old, Options()) == 0
        if len(old) < len(seen):
            self.reopen(sum(1 << job % 20 for job, run in seen if self.latest[job] == run))

    def _claim(self, actor: int) -> None:
        self.claim(actor, 2, 1)

    def _start(self, actor: int) -> None:
        if (dice := self._own(actor)) is not None:
            self.start(dice, 2)

    def _complete(self, actor: int) -> None:
        if (dice := self._own(actor)) is not None:
            self.complete(dice, 0)

    def _fail(self, actor: int) -> None:
        if (dice := self._own(actor)) is not None:
            self.fail(dice, 0, "failed", 1)

    def _release(self, actor: int) -> None:
        if (dice := self._own(actor)) is not None:
            self.release(dice, 3, untouched=False)

    def _rescue(self, actor: int) -> None:
        self.rescue(actor)

    def _fall_silent_first(self, _: int) -> None:
        self.fall_silent(0)

    def _own(self, actor: int) -> int | None:
        """The model's dice for what this actor has claimed last."""
        mine = [n for n, (bee, _) in enumerate(reversed(self.known)) if bee is self.bees[actor]]
        return mine[0] if mine and mine[0] < 8 else None


Order = tuple[str, tuple[str, ...]]


def every(n_actors: int) -> Iterator[Order]:
    """Every order of so many actors' steps, from every beginning."""
    for beginning in BEGINNINGS:
        for steps in product(STEPS, repeat=n_actors):
            yield beginning, steps


def play(connection: Connection, order: Order) -> None:
    """Play one order; an AssertionError tells which."""
    beginning, steps = order
    played = Play(connection)
    try:
        for actor, step in (*BEGINNINGS[beginning], *enumerate(steps)):
            played.act(actor, step)
    except AssertionError as error:
        raise AssertionError(f"{error}\n  {beginning}, then {' '.join(steps)}") from error
    finally:
        played.teardown()
