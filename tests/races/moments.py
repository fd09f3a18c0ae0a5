"""Two statements at the same moment: one is held open while the other begins, then it commits or rolls back."""

from __future__ import annotations

import threading
from copy import deepcopy
from itertools import product

from tests.races.stage import Stage
from tests.waiting import eventually

#: How the play stands when the two statements meet: the steps that lead there.
STATES: dict[str, list[tuple[int, str]]] = {
    "nothing is claimed": [],
    "x works": [(0, "claim"), (0, "age")],
    "x is silent": [(0, "claim"), (0, "start"), (0, "age"), (0, "fall_silent")],
    "x and y race": [(0, "claim"), (0, "age"), (1, "speculate"), (0, "age")],
    "x and y race, and x is silent": [(0, "claim"), (0, "age"), (1, "speculate"), (0, "age"), (0, "fall_silent")],
    "ended badly": [(0, "claim"), (0, "fail_for_good"), (1, "cancel")],
}
STEPS = (
    *("claim", "start", "complete", "fail", "fail_for_good", "release", "rescue", "speculate", "take_over"),
    *("come_back", "cancel", "stop", "reopen"),
)
PAIRS = list(product(STEPS, STEPS))


def meet(stage: Stage, state: str, pair: tuple[str, str], *, commits: bool) -> None:
    """One step, of x, is under way, and another, of y, begins: it may have to wait for the end of the first."""
    stage.reset()
    story = f"{state}: x.{pair[0]} {'commits' if commits else 'rolls back'} under y.{pair[1]}"
    try:
        for actor, step in STATES[state]:
            stage.actors[actor].play(step)
        _overlap(stage, pair, commits=commits)
        stage.judge()
    except AssertionError as error:
        raise AssertionError(f"{error}\n  {story}") from error


def _overlap(stage: Stage, pair: tuple[str, str], *, commits: bool) -> None:
    x, y, _ = stage.actors
    raised: list[BaseException] = []

    def second() -> None:
        try:
            y.play(pair[1])
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            raised.append(error)

    before = (list(x.batches), deepcopy(stage.memory))
    x.bee.connection.run("BEGIN")
    x.play(pair[0])
    if not commits:
        x.batches, stage.memory = before
    thread = threading.Thread(target=second)
    thread.start()
    backend = y.bee.connection.backend
    eventually(lambda: not thread.is_alive() or _waits(stage, backend), what="the second step's end or its waiting")
    x.bee.connection.run("COMMIT" if commits else "ROLLBACK")
    thread.join(20)
    assert not thread.is_alive(), "the second step never ended"
    assert not raised, f"the second step met {raised[0]!r}"


def _waits(stage: Stage, backend: int | None) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE pid = %(pid)s AND wait_event_type = 'Lock'"
    return bool(stage.hive.connection.run(query, {"pid": backend}))
