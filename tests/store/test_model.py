"""The store against a plain model of it: whatever order bees, clients and mishaps come in.

The model says where each job is (waiting, or held up to a mark by whom) and how each run ended; after every
step the tables must say the same. ``--hypothesis-profile deep`` looks much further.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.servers import Database
from tests.store.hive import ANY, Hive, Puppet, ids_of, success
from workerbee.store import Connection
from workerbee.wire.job import Batch, Options

SLOTS = st.integers(0, 2)
DICE = st.integers(0, 10**6)
Run = tuple[int, int]  # (job, run)


@dataclass
class Held:
    """A claimed header as the model has it."""

    bee: str
    claim: str
    run: int
    jobs: list[int]
    started: int

    def drop(self, job: int) -> None:
        if self.jobs.index(job) < self.started:
            self.started -= 1
        self.jobs.remove(job)


class Store(RuleBasedStateMachine):
    """Rules are what bees and clients do; each says what must come of it."""

    connection: Connection

    @initialize()
    def begin(self) -> None:
        self.hive = Hive(self.connection)
        self.bees = [self.hive.bee(host) for host in "abc"]
        self.dead: set[str] = set()
        self.latest: dict[int, int] = {}
        self.outcomes: dict[Run, str] = {}
        self.waiting: Counter[Run] = Counter()
        self.held: dict[int, Held] = {}
        self.charges: Counter[tuple[int, int, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.known: list[tuple[Puppet, Batch]] = []  # all that was ever claimed, for writers that come late
        self.begun: set[tuple[str, int]] = set()  # (claim, job) that a bee may have run, and may yet complete
        self.submit(3)
        [batch] = self.bees[0].claim(3, 3, ANY)
        self._claimed(self.bees[0], batch)
        self.bees[0].complete([success(j, duration=0.001) for j in ids_of(batch)], [batch], hint=None)
        for job in ids_of(batch):
            self._end(job, 1, "completed")
        del self.held[batch.id]

    def teardown(self) -> None:
        if hasattr(self, "hive"):
            self.hive.catalogue.drop_jobset(self.hive.jobset)

    # Clients

    @rule(n=st.integers(1, 6))
    def submit(self, n: int) -> None:
        for job in self.hive.add(n):
            self.latest[job] = 1
            self.waiting[job, 1] += 1
            self.counts["added"] += 1

    @rule(dice=DICE, running=st.booleans())
    def cancel(self, dice: int, running: bool) -> None:
        asked = {(j, self.latest[j]) for j in self._some_jobs(dice)}
        verb = self.hive.client.cancel_running if running else self.hive.client.cancel_waiting
        unbegun = {run for run in asked if self.waiting[run]}
        for held in self.held.values():
            for job in [j for j in held.jobs[held.started :] if (j, held.run) in asked]:
                held.drop(job)
                unbegun.add((job, held.run))
        ended = {run for run in (asked if running else unbegun) if run not in self.outcomes}
        assert verb(sorted(asked)) == {job for job, _ in ended}
        for run in unbegun:
            self.waiting.pop(run, None)
        for run in ended:
            self._end(*run, "cancelled")

    @rule(dice=DICE)
    def reopen(self, dice: int) -> None:
        asked = [(j, self.latest[j]) for j in self._some_jobs(dice)]
        ended = [run for run in asked if self.outcomes.get(run) in ("failed", "cancelled")]
        assert self.hive.client.reopen(asked, Options()) == len(ended)
        for job, run in ended:
            self.latest[job] = run + 1
            self.waiting[job, run + 1] += 1
            self.counts["reopened"] += 1
            self.counts["revived"] += self.outcomes[job, run] == "cancelled"

    # Bees

    @rule(slot=SLOTS, n=st.integers(1, 5), start=st.integers(0, 5))
    def claim(self, slot: int, n: int, start: int) -> None:
        bee = self.bees[slot]
        batches = bee.claim(n, min(n, start), ANY)
        assert sum(len(self._jobs_of(b)) for b in batches) == min(n, self.waiting.total())
        for batch in batches:
            self._claimed(bee, batch)

    def _claimed(self, bee: Puppet, batch: Batch) -> None:
        [(jobs, started)] = self.hive.run("SELECT jobs, started FROM {batch} WHERE id = %(b)s", b=batch.id)
        open_ = [j for j in jobs if (j, batch.run) not in self.outcomes]
        assert open_ == ids_of(batch), "ended jobs aren't handed out"
        assert batch.started == len([j for j in jobs[:started] if j in open_])
        assert not batch.again or all(job.n_attempts >= 0 for job in batch.jobs)
        for job in jobs:
            assert self.waiting[job, batch.run] > 0
            self.waiting[job, batch.run] -= 1
        held = self.held[batch.id] = Held(str(bee.incarnation), str(batch.claim), batch.run, list(jobs), started)
        self._begin(held)
        self.known.append((bee, batch))

    def _begin(self, held: Held) -> None:
        self.begun |= {(held.claim, job) for job in held.jobs[: held.started]}

    def _jobs_of(self, batch: Batch) -> list[int]:
        [(jobs,)] = self.hive.run("SELECT jobs FROM {batch} WHERE id = %(b)s", b=batch.id)
        return list(jobs)

    @precondition(lambda self: self.known)
    @rule(dice=DICE, mark=st.integers(0, 6))
    def start(self, dice: int, mark: int) -> None:
        bee, batch, held = self._some_claim(dice)
        if held is not None:
            held.started = min(max(held.started, mark), len(held.jobs))
            self._begin(held)
        assert bee.start(batch, mark) == ((held.started, held.jobs) if held else (0, []))

    @precondition(lambda self: self.known)
    @rule(dice=DICE, some=DICE)
    def complete(self, dice: int, some: int) -> None:
        bee, batch, held = self._some_claim(dice)
        mine = held.jobs[: held.started] if held else ids_of(batch)
        begun = [job for job in mine if (str(batch.claim), job) in self.begun]
        ended = begun[: 1 + some % len(begun)] if begun else []
        for job in ended:
            if (job, batch.run) not in self.outcomes:
                self._end(job, batch.run, "completed")
        closes = held is not None and all((j, held.run) in self.outcomes for j in held.jobs)
        bee.complete([success(j, batch.run, 0.001) for j in ended], [batch] if closes else [], hint=None)
        if closes:
            del self.held[batch.id]

    @precondition(lambda self: self.known)
    @rule(dice=DICE, some=DICE, kind=st.sampled_from(["failed", "died", "error"]), attempts=st.integers(1, 3))
    def fail(self, dice: int, some: int, kind: str, attempts: int) -> None:
        bee, batch, held = self._some_claim(dice)
        jobs = ids_of(batch)
        if jobs:
            job = jobs[some % len(jobs)]
            assert bee.miss(batch, job, kind=kind, attempts=attempts) == self._failed(held, batch, job, kind, attempts)

    def _failed(self, held: Held | None, batch: Batch, job: int, kind: str, attempts: int) -> str:
        run = (job, batch.run)
        if held is None or job not in held.jobs:
            return "ignored"
        held.drop(job)
        if run in self.outcomes:
            return "noted"
        self.charges[job, batch.run, kind] += 1
        copies = self._holders(*run)
        if any(copy.bee not in self.dead for copy in copies):
            return "noted"
        for copy in copies:
            copy.drop(job)
        if self.charges[job, batch.run, kind] >= attempts:
            self._end(*run, "failed")
            return "failed"
        self.waiting[run] += 1
        self.counts["retried"] += 1
        return "retried"

    @precondition(lambda self: self.known)
    @rule(dice=DICE, some=DICE, untouched=st.booleans())
    def release(self, dice: int, some: int, untouched: bool) -> None:
        bee, batch, held = self._some_claim(dice)
        given = [j for n, j in enumerate(ids_of(batch)) if some >> n & 1]
        untouched = untouched and not any((j, batch.run) in self.outcomes for j in given)
        if not given:
            return
        bee.release(batch, given, untouched=untouched)
        if untouched:  # so the bee vouches, and completes none of it later
            self.begun -= {(str(batch.claim), job) for job in given}
        self._given_back(batch.id, held, given)

    def _given_back(self, number: int, held: Held | None, given: list[int]) -> None:
        if held is None:
            return
        for job in [j for j in given if j in held.jobs]:
            held.drop(job)
            if (job, held.run) not in self.outcomes and not self._holders(job, held.run):
                self.waiting[job, held.run] += 1
        if not held.jobs:
            del self.held[number]

    @rule(slot=SLOTS)
    def forget_claims(self, slot: int) -> None:
        """A bee that was cut off gives back what it doesn't know of, here everything."""
        bee = self.bees[slot]
        bee.release_unknown([])
        for number, held in list(self.held.items()):
            if held.bee == str(bee.incarnation):
                self.begun -= {(held.claim, job) for job in held.jobs}
                self._given_back(number, held, list(held.jobs)) if held.jobs else self.held.pop(number)

    @rule(slot=SLOTS)
    def fall_silent(self, slot: int) -> None:
        self.bees[slot].lapse()
        self.dead.add(str(self.bees[slot].incarnation))

    @rule(slot=SLOTS)
    def beat(self, slot: int) -> None:
        bee = self.bees[slot]
        if bee.beat():
            bee.came_back()
        self.dead.discard(str(bee.incarnation))

    @rule(slot=SLOTS)
    def restart(self, slot: int) -> None:
        """A new incarnation on the same host; what the old one held is to be rescued."""
        self.bees[slot].lapse()
        self.dead.add(str(self.bees[slot].incarnation))
        self.bees[slot] = self.hive.bee(self.bees[slot].host)

    @rule(slot=SLOTS)
    def rescue(self, slot: int) -> None:
        judge = self.bees[slot]
        judge.beat()
        self.dead.discard(str(judge.incarnation))
        self.hive.run(
            "UPDATE {bee} SET served_since = now() - interval '1 hour' WHERE incarnation = %(b)s",
            b=str(judge.incarnation),
        )
        lapsed = {n: h for n, h in self.held.items() if h.bee in self.dead}
        assert set(judge.save()) == {held.bee for held in lapsed.values()}
        for number in lapsed:
            del self.held[number]
        for held in lapsed.values():
            for n, job in enumerate(held.jobs):
                run = (job, held.run)
                if (
                    run not in self.outcomes
                    and not self._holders(*run)
                    and not (n < held.started and self.waiting[run])
                ):
                    self.waiting[run] += 1

    @rule(slot=SLOTS, dice=DICE)
    def speculate(self, slot: int, dice: int) -> None:
        bee = self.bees[slot]
        if self.held:
            number = sorted(self.held)[dice % len(self.held)]
            self.hive.run("UPDATE {batch} SET claimed_at = claimed_at - interval '9 s' WHERE id = %(b)s", b=number)
        for batch in bee.speculate(ANY):
            [job] = ids_of(batch)
            [original] = self._holders(job, batch.run)
            assert original.bee != str(bee.incarnation)
            assert original.jobs.index(job) < original.started
            assert (job, batch.run) not in self.outcomes
            held = self.held[batch.id] = Held(str(bee.incarnation), str(batch.claim), batch.run, [job], 1)
            self._begin(held)
            self.known.append((bee, batch))
            self.counts["speculative"] += 1

    @rule(slot=SLOTS, seconds=st.sampled_from([0.5, 2.0]))
    def take_over(self, slot: int, seconds: float) -> None:
        bee = self.bees[slot]
        self.hive.run(
            "UPDATE {batch} SET claimed_at = claimed_at - make_interval(secs => %(s)s),"
            " marked_at = marked_at - make_interval(secs => %(s)s) WHERE jobset = {number} AND claim IS NOT NULL",
            s=seconds,
        )
        slow = {n: h for n, h in self.held.items() if h.bee != str(bee.incarnation) and h.started < len(h.jobs)}
        n = bee.take_over(ANY)
        assert bool(n) == bool(slow)
        [number] = [i for i in slow if self._jobs_now(i) != slow[i].jobs] or [None]
        if number is not None:
            held = slow[number]
            held.jobs, tail = held.jobs[:-n], held.jobs[-n:]
            assert held.started <= len(held.jobs)
            self.waiting.update((job, held.run) for job in tail)

    def _jobs_now(self, number: int) -> list[int]:
        return list(self.hive.run("SELECT jobs FROM {batch} WHERE id = %(b)s", b=number)[0][0])

    # The model

    def _end(self, job: int, run: int, status: str) -> None:
        assert (job, run) not in self.outcomes
        self.outcomes[job, run] = status
        self.counts[status] += 1

    def _holders(self, job: int, run: int) -> list[Held]:
        return [held for held in self.held.values() if held.run == run and job in held.jobs]

    def _some_jobs(self, dice: int) -> list[int]:
        return [job for job in self.latest if (dice >> job % 20) & 1]

    def _some_claim(self, dice: int) -> tuple[Puppet, Batch, Held | None]:
        """A claim, old or present, and what is held by it."""
        bee, batch = self.known[-1 - dice % min(8, len(self.known))]
        held = self.held.get(batch.id)
        return bee, batch, held if held is not None and held.claim == str(batch.claim) else None

    @invariant()
    def the_tables_say_the_same(self) -> None:
        if not hasattr(self, "hive"):
            return
        held = self.hive.run(
            "SELECT id, bee::text, claim::text, run, jobs, started FROM {batch}"
            " WHERE jobset = {number} AND claim IS NOT NULL"
        )
        assert {i: Held(bee, claim, run, list(jobs), n) for i, bee, claim, run, jobs, n in held} == self.held
        waiting = "SELECT unnest(jobs), run FROM {batch} WHERE jobset = {number} AND claim IS NULL"
        assert Counter(self.hive.run(waiting)) == +self.waiting
        outcomes = self.hive.run("SELECT job, run, status FROM {outcome}")
        assert {(job, run): status for job, run, status in outcomes} == self.outcomes

    @invariant()
    def each_open_run_is_in_one_place(self) -> None:
        """It waits once, or is held, by one bee or by two that race; an ended one may only be left over."""
        if not hasattr(self, "hive"):
            return
        for job, run in self.latest.items():
            if (job, run) not in self.outcomes:
                holders = self._holders(job, run)
                assert (self.waiting[job, run], len(holders)) in ((1, 0), (0, 1), (0, 2))

    @invariant()
    def the_counters_are_true(self) -> None:
        if not hasattr(self, "hive"):
            return
        counts = self.hive.catalogue.counts(self.hive.jobset.number)
        [(lost, late, waits)] = self.hive.run(
            "SELECT count(*) FILTER (WHERE kind = 'lost'), count(*) FILTER (WHERE kind = 'late'),"
            " count(*) FILTER (WHERE kind NOT IN ('lost', 'away', 'late', 'copy')) FROM {attempt}"
        )
        assert waits == self.charges.total()
        expected = self.counts | Counter(lost=lost, late=late)
        assert Counter({k: v for k, v in counts._asdict().items() if v}) == +expected
        assert counts.open == sum((job, run) not in self.outcomes for job, run in self.latest.items())


def test_the_store_does_as_the_model(shared: Database) -> None:
    """Hypothesis looks for a sequence of steps after which tables and model differ."""
    Store.connection = Connection(shared.dsn)
    try:
        Store.TestCase.settings = settings(max_examples=settings.default.max_examples // 2, stateful_step_count=40)
        Store.TestCase().runTest()
    finally:
        Store.connection.close()
