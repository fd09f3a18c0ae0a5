"""The bee: claims jobs, has its crew run them, records how they end, and looks after what others left.

It is one thread that repeats a round: record what has ended, send a heartbeat, look after others, claim. A round looks
at the clock once and executes a few statements at most. Wherever it waits, for an answer of the database or for the
next thing to do, it serves the runners (`crew.Crew.serve`), so that neither waits for the other. In an outage it tries
again about once a second, and keeps in memory what has ended until that is stored.

This module holds the order of a round. `hunger` decides when to claim, `departure` when to end; `presence` sends the
heartbeats; `claiming` takes work, `holdings` keep it, `recorder` stores how it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from workerbee import resources
from workerbee.bee import lookout
from workerbee.bee.chronicle import Chronicle
from workerbee.bee.claiming import Claiming
from workerbee.bee.crew import Crew
from workerbee.bee.damper import Damper
from workerbee.bee.departure import Departure, Leaving, Phase
from workerbee.bee.exhaustion import Exhaustion
from workerbee.bee.hunger import Hunger
from workerbee.bee.judge import Judge
from workerbee.bee.messages import Unusable
from workerbee.bee.pace import SATED, Appetite
from workerbee.bee.presence import Presence
from workerbee.bee.recorder import Recorder
from workerbee.bee.refusals import Refusals
from workerbee.bee.service import Service
from workerbee.bee.tasks import End
from workerbee.errors import DatabaseUnavailableError, WorkerbeeError
from workerbee.orders import BeeEvent, ExitStatus, Orders
from workerbee.store import Catalogue, Connection, Limits, jitter, retrying, schema
from workerbee.timing import BEAT_SECONDS
from workerbee.wire.job import EndKind

#: The longest wait before a retry in seconds, unless a bee has other orders.
LONGEST_PAUSE_SECONDS = 300.0
#: Seconds until a delayed hint is sent, and until the next try to start more of a batch.
HINT_SECONDS, START_SECONDS = 0.02, 0.05
#: The last words of a bee that ends in an orderly way.
LAST_WORDS = {
    ExitStatus.OK: "nothing was left to do, or it was stopped",
    ExitStatus.CANT_GO_ON: "it couldn't go on",
    ExitStatus.TIME_IS_UP: "its time was up, or its number of jobs done",
}
#: The channel of hints that there is work.
WORK_CHANNEL = "workerbee$work"


class Supervisor:
    """One bee. `run` returns its exit status."""

    def __init__(
        self,
        orders: Orders,
        crew: Crew,
        log: logging.Logger,
        *,
        tell: Callable[[BeeEvent], None] = lambda _: None,
        program: Callable[[], bytes] = lambda: b"",
    ) -> None:
        name, now = str(crew.bee)[:8], time.monotonic()
        self._orders = orders
        self._log = log
        self._crew = crew
        self._connection = Connection(orders.dsn, application=f"workerbee bee {name}", wait=self._wait_for)
        catalogue = Catalogue(self._connection)
        self._presence = self._new_presence(catalogue)
        self._chronicle = Chronicle(catalogue)
        judge = _new_judge(orders, name)
        self._service = Service(orders, catalogue, self._crew, self._presence, judge, tell=tell, log=log)
        self._holdings = self._service.holdings
        # In JobSet.run nothing else tells the caller of a failure.
        level = logging.WARNING if orders.only_functionless else logging.INFO
        self._recorder = Recorder(self._holdings, catalogue, self._crew, judge, log, level)
        self._damper = Damper(self._holdings, log)
        self._refusals = Refusals(
            self._holdings, self._recorder, self._presence, is_clients=orders.number is not None, tell=tell, log=log
        )
        self._claiming = Claiming(
            self._service,
            self._crew,
            self._presence,
            self._damper,
            self._refusals,
            self._recorder,
            crew.shelf,
            now=now,
            program=program,
            only_functionless=orders.only_functionless,
            log=log,
        )
        self._exhaustion = Exhaustion(
            orders, catalogue, self._holdings, self._presence, self._recorder.tally, now=now, tell=tell, log=log
        )
        self._hunger = Hunger(now, max_pause=orders.max_busywait_sleep, max_jobs=orders.max_jobs)
        self._departure = Departure(now, grace=orders.grace, lifetime=orders.lifetime, max_jobs=orders.max_jobs)

    def _new_presence(self, catalogue: Catalogue) -> Presence:
        """Make the presence, which asks parts that don't exist yet, but will when it has a word to say."""
        return Presence(
            catalogue,
            self._crew.bee,
            self._log,
            n_runners=self._orders.workers,
            holds=lambda: len(self._holdings) > 0,
            rests=lambda: self._damper.is_resting,
            on_given_up=lambda: self._holdings.come_back(),  # noqa: PLW0108 (they don't exist yet)
            max_pause=max(LONGEST_PAUSE_SECONDS, self._orders.max_failure_sleep),
            lifetime=self._orders.lifetime,
        )

    # Life

    def run(self) -> ExitStatus:
        """Serve until the bee has a reason to end."""
        reason = ExitStatus.CANT_GO_ON
        try:
            self._go_round()
        except Leaving as leaving:
            reason = leaving.reason
        except DatabaseUnavailableError as error:
            self._log.error("%s", error)
            reason = ExitStatus.NO_DATABASE
        except WorkerbeeError as error:
            self._log.error("%s", error)
            reason = ExitStatus.USAGE
        except Exception:  # noqa: BLE001 (the crew must be dismissed)
            self._log.exception("this bee has met a fault of its own, and ends")
        finally:
            self._log.info("bee %s ends: %s", self._presence.name, self._recorder.tally)
            self._crew.dismiss()
            self._connection.close()
        return self._departure.status(reason, time.monotonic())

    def drain(self, *, now: bool = False) -> None:
        """Claim nothing more, finish what runs within the grace period; ``now``: give all of it back."""
        self._departure.stop(time.monotonic(), at_once=now)
        self._crew.wake()

    def _go_round(self) -> None:
        self._patiently(self._arrive)
        while True:
            self._patiently(self._round)
            for channel, hint in self._wait(self._until_next()):
                if channel == WORK_CHANNEL:
                    self._hear(hint)
            if self._connection.fileno() < 0:
                self._look_anew()

    def _wait(self, seconds: float) -> list[tuple[str, str]]:
        """Serve the runners until a message, a notification, a wake-up or the end of the connection comes.

        Returns the notifications.
        """
        was_open = self._connection.fileno() >= 0
        heard = self._connection.notifications()
        is_lost = was_open and self._connection.fileno() < 0
        if not heard and not is_lost:
            self._crew.serve(seconds, self._connection.fileno())
            heard = self._connection.notifications()
        return heard

    def _wait_for(self, fd: int, writing: bool, timeout: float) -> bool:  # noqa: FBT001
        """Serve the runners while the connection waits for an answer."""
        return self._crew.serve(timeout, fd, writing=writing, only=True)

    def _hear(self, hint: str) -> None:
        """Obey a hint: there is work in a jobset, or jobs of it that have not begun are wanted back."""
        word, _, number = hint.partition(" ")
        if word == "recall" and number.isdecimal() and int(number[:10]) in self._holdings.served:
            self._holdings.give_back_tasks(self._crew.recall(int(number[:10])))
        else:  # there may be work for this bee, or others may soon need its help
            self._hunger.hurry()
            self._presence.is_lively = True
            self._presence.beat_soon(BEAT_SECONDS)

    def _look_anew(self) -> None:
        """After the end of a connection, see soon what no hint will tell; but not at the same moment as other bees."""
        pause = lookout.pause(self._presence.n_bees) * jitter.random()
        self._presence.beat_soon(pause)
        self._hunger.hurry(time.monotonic() + pause)

    def _patiently(self, action: Callable[[], None]) -> None:
        retrying(action, patience=self._orders.reconnect_timeout, pause=self._pause, log=self._log)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try, without losing a stop; False when the bee is to end anyway."""
        self._connection.drop()
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._is_out_of_time():
            self._wait(left)
        return not self._is_out_of_time()

    def _is_out_of_time(self) -> bool:
        return self._departure.is_out_of_time(time.monotonic(), has_arrived=self._presence.has_arrived)

    def _arrive(self) -> None:
        """Install or check the schema, find the jobset, and say that this bee is here."""
        schema.ensure(self._connection)
        jobset = self._service.find(self._departure, self._wait) if self._orders.is_for_one else None
        self._connection.listen([WORK_CHANNEL])
        self._presence.arrive(jobset and jobset.number)
        if jobset is not None:
            self._service.serve(jobset)
        name = "every jobset" if jobset is None else jobset.name
        self._log.info("bee %s serves %s with %d runner(s)", self._presence.name, name, self._orders.workers)

    # One round

    def _round(self) -> None:
        now = time.monotonic()
        if self._presence.must_reconcile(now):
            self._holdings.reconcile()
            self._presence.reconciled(now)
        self._settle()
        self._presence.beat_if_due()
        at_work = self._holdings.jobsets() | self._presence.seen_at_work
        self._chronicle.note_if_due(now, at_work, n_bees=self._presence.n_bees)
        self._holdings.stop_overtaken(now)
        self._leave_if_broken()
        match self._departure.phase(now, n_taken=self._claiming.n_taken, n_held=len(self._holdings)):
            case Phase.WORKING:
                self._holdings.start_more()
                # Jobs that wait here behind long ones may find a free runner elsewhere.
                self._holdings.give_back_tasks(self._crew.take_back(all_ready=False))
                self._holdings.return_booked()
                self._claim(now)
                if self._service.leave_behind():
                    self._look_anew()
            case Phase.OVER:
                self._leave(ExitStatus.OK)
            case phase:
                if phase is Phase.STOPPING:
                    seconds = self._departure.next_change - now
                    self._log.info("claiming nothing more; what runs may take %.0f s to finish", seconds)
                self._finish()

    def _settle(self) -> None:
        """Tell the database what has ended here, and what is given back."""
        for end in self._crew.collect():
            if isinstance(end, Unusable):
                self._refusals.hear(end)
            else:
                self._route(end)
        self._refusals.settle()
        if self._damper.settle():
            self._presence.beat_soon()
        self._holdings.return_booked()
        self._recorder.record(n_bees=self._presence.n_bees)

    def _route(self, end: End) -> None:
        """Have an end recorded, or give the job back if it didn't run."""
        if end.kind is EndKind.RECALLED:
            self._holdings.give_back_tasks([end.task])
            return
        self._recorder.keep(end)
        if end.kind is not EndKind.STOPPED and self._damper.note(end):
            self._hunger.hurry()

    def _claim(self, now: float) -> None:
        """Claim as much as is wanted, and look after others now and then."""
        n_bees, n_taken = self._presence.n_bees, self._claiming.n_taken
        wanted = self._hunger.wants(now, self._appetite(), n_taken=n_taken, n_bees=n_bees)
        if wanted is not None:
            n, is_sated = self._claiming.claim(wanted, now) if wanted.jobs else (0, False)
            self._hunger.fed(
                time.monotonic(),
                n,
                is_sated=is_sated,
                was_help=self._help_others_if_due(now, is_idle=not n, is_sated=is_sated),
                n_bees=n_bees,
                is_lively=self._presence.is_lively,
                look_within=self._claiming.look_within(),
            )
        if self._hunger.listens != self._connection.listens:
            if self._hunger.listens:
                self._connection.listen([WORK_CHANNEL])
            else:
                self._connection.unlisten()

    def _appetite(self) -> Appetite:
        return SATED if self._holdings.is_full else self._crew.appetite()

    def _help_others_if_due(self, now: float, *, is_idle: bool, is_sated: bool) -> bool:
        """Look after others, if it is time to. Returns whether that has brought work."""
        if not self._claiming.is_time_to_help(now, is_sated=is_sated):
            return False
        if self._claiming.help_others(now, is_idle=is_idle):
            return True
        if is_idle:
            self._service.look_for_named()
            self._refusals.reconsider()
            if (reason := self._exhaustion.reason(now)) is not None:
                self._leave(reason)
        return False

    def _until_next(self) -> float:
        """Give the seconds until there is something to do by the clock."""
        now = time.monotonic()
        timers = [self._presence.next_beat, self._departure.next_change]
        if self._recorder.has_ends:
            timers.append(now)
        if self._recorder.hints_due:
            timers.append(now + HINT_SECONDS)
        if not self._departure.is_stopped and self._appetite().jobs:
            timers.append(self._hunger.claim_at)
        if self._holdings.has_unstarted():
            timers.append(now + START_SECONDS)
        return max(0.0, min(timers) - now)

    # Ending

    def _leave_if_broken(self) -> None:
        """End if there are no runners any more, nor can there be."""
        if (reason := self._crew.broken) is not None:
            self._service.say_broken(reason)
            self._leave(ExitStatus.CANT_GO_ON)

    def _finish(self) -> None:
        """Give back the jobs that have not begun, and end when those that have are done."""
        self._holdings.give_back_tasks(self._crew.take_back(all_ready=True))
        self._holdings.give_back_unstarted()
        self._holdings.return_booked()
        if self._crew.is_empty and not self._recorder.has_ends:
            self._leave(ExitStatus.OK)

    def _leave(self, reason: ExitStatus) -> None:
        """Give back everything, say goodbye, and end."""
        self._settle()
        self._crew.take_back(all_ready=True)
        self._holdings.give_back_all()
        self._settle()
        for served in self._holdings.each_served():
            with self._holdings.guard(served.jobset.number):
                served.store.release_unknown(())
        self._chronicle.close()
        words = LAST_WORDS.get(self._departure.status(reason, time.monotonic()), reason.name)
        self._presence.leave(f"{words}; {self._recorder.tally}")
        raise Leaving(reason)


def _new_judge(orders: Orders, name: str) -> Judge:
    limits = Limits(orders.max_n_retry_attempts, 1.0, orders.max_failure_sleep)
    return Judge(bee=name, host=resources.host(), limits=limits)
