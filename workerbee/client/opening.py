"""Opening: an executor's jobset is found, or made."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from uuid import uuid4

from workerbee import keeping
from workerbee.blobs import Depot, Folder
from workerbee.errors import JobsetNotFoundError, KeyMismatchError, UnsupportedDatabaseError, brief
from workerbee.store import Catalogue, ClientStore, Connection, retrying, schema
from workerbee.wire.job import Jobset
from workerbee.wire.signing import Key, Signer, whereabouts


def find_or_make(
    jobset_id: str | None,
    dsn: str,
    key: Key,
    *,
    patience: float | None,
    log: logging.Logger,
    large: Depot | None = None,
) -> tuple[Jobset, Folder | None]:
    """Find or make the jobset of an executor that signs with ``key``; without an id, make a temporary one.

    With it comes its folder in the place for ``large`` values, if there is one. An outage is waited out for
    ``patience`` seconds (None: for ever). Raises KeyMismatchError, JobsetNotFoundError (if it is dropped at this
    moment), LargeValuesError, DatabaseUnavailableError, UnsupportedDatabaseError.
    """
    with closing(Connection(dsn, application="workerbee client")) as connection:
        open_once = partial(_find_or_make, Catalogue(connection), jobset_id, key, log)
        jobset = retrying(open_once, patience=patience, log=log, opening=True)
        if large is None:
            return jobset, None
        store, signer = ClientStore(connection, jobset, uuid4()), Signer(key, jobset.uuid)
        return jobset, retrying(lambda: keeping.open_folder(store, signer, large), patience=patience, log=log)


def _find_or_make(catalogue: Catalogue, jobset_id: str | None, key: Key, log: logging.Logger) -> Jobset:
    schema.ensure(catalogue.connection)
    if jobset_id is None:
        jobset = catalogue.create_jobset(None, key=key.fingerprint, speculate=False, client=uuid4())
    else:
        jobset = catalogue.find_jobset(jobset_id)
        if jobset is not None and (damage := catalogue.damage(jobset)):
            raise UnsupportedDatabaseError(
                f"somebody has changed the tables of the jobset {jobset_id!r} by hand: {damage}; have that put right, "
                "or choose another jobset_id"
            )
        jobset = jobset or catalogue.create_jobset(jobset_id, key=key.fingerprint, speculate=True)
        jobset = jobset or catalogue.find_jobset(jobset_id)
    if jobset is None:
        raise JobsetNotFoundError(str(jobset_id), dropped=True)
    adopt(catalogue, jobset, key, log)
    catalogue.sweep(partial(_remove_files, catalogue, key, log))
    if not jobset.is_temporary:
        ClientStore(catalogue.connection, jobset, uuid4()).parts.sweep_parts()
    return jobset._replace(key=key.fingerprint)


def _remove_files(catalogue: Catalogue, key: Key, log: logging.Logger, dropped: Jobset) -> None:
    """Remove the large values of a jobset whose drop was not finished, as far as they can be seen from here."""
    store = ClientStore(catalogue.connection, dropped, uuid4())
    for why in keeping.remove(store, Signer(key, dropped.uuid)):
        log.warning("%s was dropped, but %s", dropped.name, why)


def adopt(catalogue: Catalogue, jobset: Jobset, key: Key, log: logging.Logger) -> None:
    """Have a jobset be signed with this key, if it isn't with another. Raises KeyMismatchError, JobsetNotFoundError."""
    theirs = catalogue.adopt_key(jobset, key.fingerprint)
    if theirs is None:
        raise JobsetNotFoundError(jobset.name, dropped=True)
    if theirs != key.fingerprint:
        if not _has_signed(key, catalogue.connection, jobset):
            raise KeyMismatchError(jobset.name, theirs, key.fingerprint, whereabouts(theirs))
        log.warning(
            "the row of %s named the key %s, but its functions are signed with that of this process, %s: somebody has "
            "changed the row, and it is put right",
            jobset.name,
            brief(theirs),
            key.fingerprint,
        )
        catalogue.restore_key(jobset, key.fingerprint)


def _has_signed(key: Key, connection: Connection, jobset: Jobset) -> bool:
    """Tell whether a function of this jobset is signed with this key. Unlike the jobset's row, that can't be forged."""
    store, signer = ClientStore(connection, jobset, uuid4()), Signer(key, jobset.uuid)
    records = map(store.get_function, store.small_functions())
    return any(r is not None and signer.verify_function(r.mac, r.codec, r.digest, r.body) for r in records)
