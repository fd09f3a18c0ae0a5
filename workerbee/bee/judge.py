"""The judge: as what an end is recorded, whose failure it was, and whether it ends the run."""

from __future__ import annotations

from workerbee.bee.crew import DEATHS
from workerbee.bee.holdings import held_of
from workerbee.bee.tasks import End, Task
from workerbee.errors import EncodingError, FunctionUnavailable, RunnerDiedError
from workerbee.store import Limits
from workerbee.wire.failures import encode_error, noted
from workerbee.wire.job import NO_FUNCTION, EndKind, Outcome
from workerbee.wire.signing import Key, Signer

#: A limit of attempts that is never reached: PostgreSQL's largest integer.
UNLIMITED = 2**31 - 1


class Judge:
    """Decides as what an end is recorded, whose failure it was, and after how many of them the run ends.

    ``key`` signs the errors that the bee itself makes.
    """

    def __init__(self, *, bee: str, host: str, limits: Limits) -> None:
        self._bee = bee
        self._host = host
        self.key: Key | None = None
        self._limits = limits

    def charge(self, end: End) -> tuple[Outcome, Limits]:
        """Give a failed attempt as it is recorded, and the number of attempts of its kind that end the run."""
        job = end.task.job
        if end.kind in (EndKind.FAILED, EndKind.ERROR):
            limits = self._limits if end.kind is EndKind.FAILED else Limits(1)
            data, mac = self._noted(end)
            return Outcome(job.id, job.run, end.kind, end.codec, data, mac, end.duration), limits
        if end.kind is EndKind.TIMEOUT:
            timeout = f"its timeout of {end.task.lot.timeout:g} s"
            error: Exception = TimeoutError(f"job {job.id} ran longer than {timeout}; its runner was {end.evidence}")
            return self._own_outcome(end, EndKind.ERROR, error), Limits(1)
        if end.kind is EndKind.REFUSED:
            return self._own_outcome(end, EndKind.ERROR, FunctionUnavailable(end.evidence)), Limits(1)
        if end.kind is EndKind.ORPHANED:
            # The caller was killed or preempted, which says nothing of the job. As when a bee vanishes, the next bee
            # that claims it decides by the number of hosts.
            error = RunnerDiedError(f"job {job.id} was lost with the process that had called for it")
            return self._own_outcome(end, EndKind.LOST, error), Limits(UNLIMITED)
        what, limit = ("ended its runner", DEATHS) if end.kind is EndKind.DIED else ("was lost with its bee", 1)
        error = RunnerDiedError(f"job {job.id} {what}, for the last of {DEATHS} times: {end.evidence}")
        return self._own_outcome(end, end.kind, error), Limits(limit)

    def unstored(self, end: End, refusal: Exception) -> End:
        """Make the failure of a job whose result PostgreSQL refuses."""
        outcome = self._own_outcome(end, EndKind.ERROR, EncodingError("the result", refusal))
        return end._replace(kind=EndKind.ERROR, codec=outcome.codec, data=outcome.data, mac=outcome.mac)

    def _noted(self, end: End) -> tuple[bytes, bytes | None]:
        """Give a runner's error record and its signature; with the job's last output, if it can be signed again."""
        if not end.printed.size or (end.mac is not None and not self._has_signed(end)):
            return end.data, end.mac
        record = noted(end.data, end.printed.notes())
        return record, self._signature(end.task, record) if end.mac is not None else None

    def _has_signed(self, end: End) -> bool:
        job, signer = end.task.job, self._signer(end.task)
        return signer is not None and signer.verify_end(end.mac, job.id, job.run, end.codec, end.data, is_value=False)

    def _own_outcome(self, end: End, kind: EndKind, error: Exception) -> Outcome:
        """Make an outcome with an error of the bee's own, signed as a runner signs."""
        job = end.task.job
        notes = [f"job {job.id}, attempt {job.n_attempts + 1}, bee {self._bee}, host {self._host}"]
        record = encode_error(error, notes=notes + end.printed.notes(), text_only=self.key is None)
        return Outcome(job.id, job.run, kind, "error", record, self._signature(end.task, record), end.duration)

    def _signature(self, task: Task, record: bytes) -> bytes | None:
        signer = self._signer(task)
        if signer is None:
            return None
        return signer.sign_end(task.job.id, task.job.run, "error", record, is_value=False)

    def _signer(self, task: Task) -> Signer | None:
        """Give the signer for a job, if its function is signed and the key is here."""
        held = held_of(task)
        if self.key is None or held.batch.function == NO_FUNCTION:
            return None
        return Signer(self.key, held.served.jobset.uuid)
