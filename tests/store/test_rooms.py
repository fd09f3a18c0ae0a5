"""What the rooms around the engine need: pauses, a history, who was there, and counters that don't grow for ever."""

from __future__ import annotations

import itertools
from uuid import uuid4

from tests.store.hive import ANY, Hive, success
from workerbee.store import BeeFacts, ClientStore, Counts
from workerbee.store.reader import JobsetReader, Reader
from workerbee.wire.job import Options

FOLDED = "SELECT count(*)::int, sum(added)::int, sum(completed)::int FROM {counter} WHERE jobset = {number}"
MINUTES = "SELECT completed, failed, bees FROM {history} WHERE jobset = {number} ORDER BY minute"


def test_of_a_paused_jobset_nothing_is_claimed(hive: Hive) -> None:
    """What runs goes on; the first one who paused it is remembered, and resuming brings it all back."""
    hive.add(1)
    hive.add(2)
    bee = hive.bee()
    running = bee.take()
    assert hive.catalogue.pause(hive.jobset, by="ada@node", why="disk is full\0")
    assert not hive.catalogue.pause(hive.jobset, by="bob", why=None)
    assert bee.claim(9, 9, ANY) == []
    assert hive.jobset not in [jobset for offers in hive.catalogue.offers() for jobset in offers]
    assert hive.catalogue.remaining(hive.jobset.number).paused == "ada@node: disk is full\\0"
    bee.succeed(running)
    assert hive.status(1) == "completed"
    assert hive.catalogue.resume(hive.jobset)
    assert not hive.catalogue.resume(hive.jobset)
    assert hive.jobset in [jobset for offers in hive.catalogue.offers() for jobset in offers]
    assert len(bee.take(2).jobs) == 2


def test_of_a_paused_jobset_no_copy_is_made(hive: Hive) -> None:
    """A copy of a straggler is a claim, too."""
    ids = hive.add(4)
    bee, other = hive.bee(), hive.bee("b")
    batch = bee.take(4)
    bee.complete([success(job, duration=0.01) for job in ids[:3]], [], hint=None)
    hive.age(batch, 60.0)
    hive.catalogue.pause(hive.jobset, by="ada", why=None)
    assert other.speculate(ANY) == []
    hive.catalogue.resume(hive.jobset)
    assert len(other.speculate(ANY)) == 1


def test_counters_of_those_who_have_left_are_added_up(hive: Hive) -> None:
    """In one row; who lives keeps its own, and who comes again has a new one."""
    bee, gone = hive.bee(), hive.bee("b")
    for one in (bee, gone):
        hive.client = ClientStore(hive.connection, hive.jobset, uuid4())
        hive.add(1)
        one.succeed(one.take())
    hive.catalogue.leave(gone.incarnation)
    hive.catalogue.fold_counters(hive.jobset.number, least=4)
    assert hive.run(FOLDED) == [(4, 2, 2)], "so few aren't worth it"
    hive.catalogue.fold_counters(hive.jobset.number, least=3)
    assert hive.run(FOLDED) == [(2, 2, 2)]
    hive.add(1)
    bee.succeed(bee.take())
    hive.catalogue.fold_counters(hive.jobset.number, least=1)
    assert hive.run(FOLDED) == [(2, 3, 3)]
    assert hive.catalogue.counts(hive.jobset.number).open == 0


def test_each_counter_is_summed_and_kept_under_its_name(hive: Hive) -> None:
    """By whoever asks: the sums as such, what the departed left, the minutes of the history, the overview."""
    hive.bee()
    counts = Counts(*range(1, len(Counts._fields) + 1))
    hive.run(
        f"INSERT INTO {{counter}} (jobset, writer, {', '.join(Counts._fields)})"
        f" VALUES ({hive.jobset.number}, %(writer)s, {', '.join(map(str, counts))})",
        writer=str(uuid4()),
    )
    assert hive.catalogue.counts(hive.jobset.number) == counts
    hive.catalogue.fold_counters(hive.jobset.number, least=1)
    assert hive.catalogue.counts(hive.jobset.number) == counts
    hive.catalogue.note_minute([hive.jobset.number])
    [minute] = JobsetReader(hive.connection, hive.jobset).history()
    assert minute.counts == counts._replace(revived=0)
    assert [row.counts for row in Reader(hive.connection).jobsets(numbers=[hive.jobset.number])] == [counts]


def test_progress_knows_what_was_run_anew(hive: Hive) -> None:
    """By counters alone: failed and cancelled runs that are followed by another aren't the job's last ones."""
    bee = hive.bee()
    hive.add(4)
    bee.miss(bee.take(), 1, attempts=1)
    hive.client.cancel_waiting([(2, 1), (3, 1)])
    hive.client.reopen([(1, 1), (2, 1)], Options())
    assert tuple(JobsetReader(hive.connection, hive.jobset).progress()) == (3, 0, 0, 0, 1)
    hive.client.cancel_waiting([(1, 2), (2, 2)])
    assert tuple(JobsetReader(hive.connection, hive.jobset).progress()) == (1, 0, 0, 0, 3)


def test_a_history_has_a_row_a_minute(hive: Hive) -> None:
    """Only one bee writes it, and only if something has happened."""
    number = hive.jobset.number
    bee = hive.bee()
    hive.add(2)
    bee.succeed(bee.take())
    assert hive.catalogue.note_minute([number]) == [number]
    assert hive.catalogue.note_minute([number, 99999]) == []
    back = "UPDATE {history} SET minute = minute - interval '1 minute' WHERE jobset = {number}"
    hive.run(back)
    assert hive.catalogue.note_minute([number]) == [], "nothing has happened"
    bee.miss(bee.take(), attempts=1)
    assert hive.catalogue.note_minute([number]) == [number]
    assert hive.run(MINUTES) == [(1, 0, 1), (1, 1, 1)]


def test_a_history_is_thinned(hive: Hive) -> None:
    """Each minute of a day, each ten minutes of a week, each hour before: the last of each is kept."""
    fill = """INSERT INTO {history} SELECT {number}, date_trunc('hour', now()) - n * interval '1 minute', 0, 0, -n, 0,
              0, 0, 0, 0, 0, 0, 0 FROM generate_series(1, 14400) n"""
    hive.run(fill)
    hive.catalogue.thin_history(hive.jobset.number)
    kept = hive.run("SELECT minute FROM {history} WHERE jobset = {number} ORDER BY minute")
    times = [minute.timestamp() for (minute,) in kept]
    steps = [round((b - a) / 60) for a, b in itertools.pairwise(times)]
    assert steps == sorted(steps, reverse=True)
    assert {60, 10, 1} <= set(steps)
    assert [steps.count(60), steps.count(10)] >= [70, 850]
    assert 1380 <= steps.count(1) <= 1441
    hive.catalogue.thin_history(hive.jobset.number)
    assert len(kept) == len(hive.run("SELECT 1 FROM {history} WHERE jobset = {number}"))


def test_who_has_left_is_remembered_for_a_week(hive: Hive) -> None:
    """With its last words; who vanished has none."""
    facts = BeeFacts(uuid4(), hive.jobset.number, "a", 1, "3.11", 2, "1.2", 8, "launch", 3, 3600.0)
    hive.catalogue.beat(facts, lease=9, resting=False)
    [(cpus, place, left)] = hive.run(
        "SELECT cpus, place, ends_at - started_at = interval '1 hour' FROM {bee} WHERE incarnation = %(b)s",
        b=str(facts.incarnation),
    )
    assert (cpus, place, left) == (8, 3, True)
    hive.catalogue.leave(facts.incarnation, "all done\0")
    vanished = hive.bee("b")
    hive.run(
        "UPDATE {bee} SET lease_until = now() - interval '2 hours' WHERE incarnation = %(b)s",
        b=str(vanished.incarnation),
    )
    hive.catalogue.sweep()
    known = "SELECT host, version, last_words FROM {departed} WHERE jobset = {number} ORDER BY host"
    assert [row[::2] for row in hive.run(known)] == [("a", "all done\\0"), ("b", None)]
    hive.run("UPDATE {departed} SET left_at = left_at - interval '8 days' WHERE host = 'a' AND jobset = {number}")
    hive.catalogue.sweep()
    assert [row[0] for row in hive.run(known)] == ["b"]


def test_the_view_says_why(hive: Hive) -> None:
    """In one line, whatever the record is, and who ran it where; also while it is tried again."""
    bee = hive.bee("node-1")
    bee.note_host()
    hive.add(1)
    bee.miss(bee.take())
    hive.make_due()
    [row] = hive.run("SELECT status, host, bee::text, error, function FROM {view}")
    assert row == ("retrying", "node-1", str(bee.incarnation), "E", None)
    said = 'SELECT workerbee."said$"(%(r)s::json)'
    for record, line in [
        ('{"type": "E", "message": "a\\nb"}', "E: a b"),
        ('{"type": "E", "message": "\\ud83d\\ude00"}', "E: \U0001f600"),
        ('{"type": "\\u0000"}', '{"type": "\\u0000"}'),
        ('{"type": "\\ud800"}', '{"type": "\\ud800"}'),
        ('{"type": "\\ude00\\ud83d"}', '{"type": "\\ude00\\ud83d"}'),
        ("3", ""),
        ("[1]", ""),
    ]:
        assert hive.connection.run(said, {"r": record}) == [(line,)], record
