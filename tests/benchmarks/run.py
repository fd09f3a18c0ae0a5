"""Measures rows: their contenders in turn, again and again, so that a disk's moods meet them all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.benchmarks.results import Results
from tests.benchmarks.rows import Row
from tests.benchmarks.stage import Contender, MeasurementError, Stage
from tests.servers import Database

#: Repetitions of a row that compares us with ourselves.
PAIRS = 10


def measure(
    stage: Stage,
    row: Row,
    peers: tuple[str, ...],
    *,
    quick: bool = False,
    repetitions: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Results:
    """What ``row`` gives. A contender that fails is not tried again."""
    n = row.quick_n if quick else row.n
    rounds = repetitions or (PAIRS if row.in_pairs else row.repetitions)
    contenders = row.with_peers(peers)
    results = Results()
    with _databases(stage, row, n) as databases:
        for repetition in range(rounds):
            for who in _in_turn(contenders, repetition):
                if who not in results.missing:
                    say(f"{row.name}: {who}, {repetition + 1} of {rounds}")
                    _sample(stage, who, contenders[who], n, databases, results)
    return results


def _in_turn(contenders: Mapping[str, Contender], repetition: int) -> list[str]:
    """There and back: none is always first."""
    names = list(contenders)
    return names[::-1] if repetition % 2 else names


@contextmanager
def _databases(stage: Stage, row: Row, n: int) -> Iterator[Callable[[ExitStack], Database]]:
    """Gives each run its database: a new one, or the one that was prepared for all."""
    if row.prepare is None:
        yield lambda stack: stack.enter_context(stage.database(row.where))
        return
    with stage.database(row.where) as prepared:
        stage.measure(row.prepare, prepared, n)
        if row.cloned:
            yield lambda stack: stack.enter_context(stage.database(row.where, template=prepared))
        else:
            yield lambda _: prepared


def _sample(
    stage: Stage,
    who: str,
    contender: Contender,
    n: int,
    databases: Callable[[ExitStack], Database],
    results: Results,
) -> None:
    try:
        with ExitStack() as stack:
            figures, results.settings[who] = stage.measure(contender, databases(stack), n)
    except MeasurementError as error:
        results.missing[who] = str(error)
    else:
        results.samples.setdefault(who, []).append(figures)
