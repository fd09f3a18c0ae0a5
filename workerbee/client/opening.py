"""An executor's jobset: found, or made."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from uuid import uuid4

from workerbee.errors import JobsetNotFoundError, KeyMismatchError
from workerbee.store import Catalogue, ClientStore, Connection, retrying, schema
from workerbee.wire.job import Jobset
from workerbee.wire.signing import Key, Signer, whereabouts


def find_or_make(jobset_id: str | None, dsn: str, key: Key, *, patience: float | None, log: logging.Logger) -> Jobset:
    """Find or make the jobset of an executor that signs with ``key``; without an id, make a temporary one.

    An outage is waited out for ``patience`` seconds (None: for ever). Raises KeyMismatchError, JobsetNotFoundError (it
    is dropped at this moment), DatabaseUnavailableError, UnsupportedDatabaseError.
    """
    with closing(Connection(dsn, application="workerbee client")) as connection:
        open_once = partial(_find_or_make, Catalogue(connection), jobset_id, key, log)
        return retrying(open_once, patience=patience, log=log, opening=True)


def _find_or_make(catalogue: Catalogue, jobset_id: str | None, key: Key, log: logging.Logger) -> Jobset:
    schema.ensure(catalogue.connection)
    if jobset_id is None:
        jobset = catalogue.create_jobset(None, key=key.fingerprint, speculate=False, client=uuid4())
    else:
        jobset = catalogue.find_jobset(jobset_id)
        jobset = jobset or catalogue.create_jobset(jobset_id, key=key.fingerprint, speculate=True)
        jobset = jobset or catalogue.find_jobset(jobset_id)
    if jobset is None:
        raise JobsetNotFoundError(str(jobset_id), dropped=True)
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
            theirs,
            key.fingerprint,
        )
        catalogue.restore_key(jobset, key.fingerprint)
    catalogue.sweep()
    return jobset._replace(key=key.fingerprint)


def _has_signed(key: Key, connection: Connection, jobset: Jobset) -> bool:
    """Look for a function of a jobset that is signed with this key: whatever the row says, that can't be forged."""
    store, signer = ClientStore(connection, jobset, uuid4()), Signer(key, jobset.uuid)
    records = map(store.get_function, store.small_functions())
    return any(r is not None and signer.verify_function(r.mac, r.codec, r.digest, r.body) for r in records)
