"""A jobset's large values in files, and what its rows say of them: where they are, and that one is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter

from workerbee import blobs
from workerbee.blobs import BLOB, Depot, Folder
from workerbee.errors import LargeValuesError, LostValueError, SignatureError
from workerbee.store import ClientStore, is_dropped, is_forbidden, is_standby
from workerbee.wire import ends, function_records, functions
from workerbee.wire.causes import cause_of_record
from workerbee.wire.job import NO_FUNCTION, FunctionRow, Jobset, Stored
from workerbee.wire.signing import Signer


def open_folder(store: ClientStore, signer: Signer, place: Depot) -> Folder:
    """Find or make the jobset's folder in a place, and sweep it. Raises LargeValuesError if it can't be used from here.

    A folder that was made before isn't made again: where it can't be seen, another one would be taken for it.
    """
    folder = Folder(place, store.jobset.uuid)
    row = _row(signer, place)
    folder.make(store.jobset.name, is_new=row.digest not in {known.digest for known in store.lent.places()})
    store.put_function(row, row.digest)
    n = folder.sweep(lambda jobs: _recorded(store, jobs))
    if n:
        logging.getLogger("workerbee").info("removed %d files that killed processes had left in %s", n, folder.url)
    return folder


def folder_of(jobset: Jobset, place: FunctionRow, signer: Signer | None) -> Folder:
    """Find a jobset's folder in a place, as its row says. Raises LargeValuesError, also if it isn't signed."""
    url = place.body.decode(errors="replace")
    if signer is None or not signer.verify_function(place.mac, place.codec, place.digest, place.body):
        raise LargeValuesError(url, "its row isn't signed with the key that is here")
    return Folder(Depot(url), jobset.uuid)


def remove(store: ClientStore, signer: Signer | None) -> list[str]:
    """Delete the large values of a jobset that is dropped. Returns why some of them are left, in sentences."""
    if store.jobset.is_temporary:  # they were in memory
        return []
    try:
        places = store.lent.places()
    except Exception as error:
        if not is_dropped(error):
            raise
        return ["whether large values of it are left in files isn't known: somebody dropped the table that said where"]
    left = []
    for place in places:
        try:
            folder_of(store.jobset, place, signer).remove()
        except LargeValuesError as error:
            left.append(f"its large values are left: {error}")
    return left


def record_loss(store: ClientStore, signer: Signer, end: Stored, error: BaseException | None) -> bool:
    """Record that the large value of an end is lost, if ``error`` says so and this user may write.

    Returns whether it is lost.
    """
    if not _is_lent(end) or not isinstance(error, LostValueError):
        return False
    failure = ends.failure(end.job, end.run + 1, signer, error)
    try:
        store.lent.lose(failure, cause_of_record(failure.data).digest)
    except Exception as refusal:
        if not (is_forbidden(refusal) or is_standby(refusal)):
            raise
    return True


def find_lost(store: ClientStore, signer: Signer, jobs: Sequence[int], *, whole: bool) -> list[int]:
    """Find those of these completed jobs whose large results are lost, and record that.

    With ``whole``, what is in the files is compared too. Raises LargeValuesError if they can't be seen from here.
    """
    return [
        end.job
        for end in _latest(store, jobs)
        if _is_lent(end) and ends.holds(end, signer) and record_loss(store, signer, end, lost(end, whole=whole))
    ]


def find_all_lost(store: ClientStore, signer: Signer) -> None:
    """Record which of all jobs have lost their large results, as far as it can be seen without reading the files."""
    if store.lent.places():
        for jobs in store.lent.lent_results():
            find_lost(store, signer, jobs, whole=False)


def lost(end: Stored, *, whole: bool) -> LostValueError | None:
    """Find out whether the large value of an end, whose signature holds, is lost; ``whole``: also what is in its file.

    Raises LargeValuesError if its folder can't be seen from here.
    """
    try:
        blobs.recall(end.data) if whole else blobs.look(end.data)
    except LostValueError as error:
        return error
    return None


def trouble(store: ClientStore, signer: Signer | None, job: int) -> str | None:
    """Say why the large result of a job can't be had from here; None: it can, or isn't in a file."""
    for end in filter(_is_lent, _latest(store, [job])):
        if signer is None or not ends.holds(end, signer):
            return str(SignatureError(job))
        try:
            error = lost(end, whole=True)
        except LargeValuesError as elsewhere:
            return str(elsewhere)
        return None if error is None else str(error)
    return None


def size(store: ClientStore, signer: Signer | None) -> int | None:
    """Count the bytes of a jobset's large values in files; None if some of them can't be seen from here."""
    try:
        return sum(folder_of(store.jobset, place, signer).size() for place in store.lent.places())
    except LargeValuesError:
        return None


def unusable(store: ClientStore, signer: Signer | None) -> list[str]:
    """List which places of a jobset's large values can't be used from here, in sentences that say why."""
    found = []
    for place in store.lent.places():
        try:
            folder_of(store.jobset, place, signer).check()
        except LargeValuesError as error:
            found.append(str(error))
    return found


def _latest(store: ClientStore, jobs: Sequence[int]) -> list[Stored]:
    """Read the ends of these jobs' latest runs that have ended."""
    all_runs = sorted((end for portion in store.finished(jobs) for end in portion), key=attrgetter("run"))
    return list({end.job: end for end in all_runs}.values())


def _is_lent(end: Stored) -> bool:
    return end.status == "completed" and end.codec == BLOB


def _row(signer: Signer, place: Depot) -> FunctionRow:
    body = place.url.encode()
    digest = functions.digest("", function_records.PLACE, body, "")
    mac = signer.sign_function(function_records.PLACE, digest, body)
    return FunctionRow(NO_FUNCTION, digest, "", function_records.PLACE, body, "", mac)


def _recorded(store: ClientStore, jobs: list[int]) -> set[tuple[int, int, str]]:
    """Find the results in files that rows of these jobs name."""
    found: set[tuple[int, int, str]] = set()
    for portion in store.finished(jobs):
        for end in portion:
            if end.codec == BLOB:
                with suppress(LostValueError):
                    found.update((end.job, end.run, piece.file) for piece in blobs.Whereabouts.parse(end.data).files)
    return found
