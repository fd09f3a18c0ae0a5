"""Ends: a stored end of a run is decoded to its value or its error, if its signature holds."""

from __future__ import annotations

from typing import Any

from workerbee.errors import JobLostError, LostValueError, SignatureError
from workerbee.wire import codec
from workerbee.wire.failures import decode_error, encode_error, tamed
from workerbee.wire.job import EndKind, Outcome, Stored
from workerbee.wire.signing import Signer


def holds(end: Stored, signer: Signer) -> bool:
    """Tell whether the signature of an end holds."""
    is_value = end.status == "completed"
    return signer.verify_end(end.mac, end.job, end.run, end.codec or "", end.data, is_value=is_value)


def decode(end: Stored, signer: Signer | None) -> tuple[Any, BaseException | None]:
    """Decode the value or the error of an end; only what is signed is unpickled.

    Without a signer, for who only looks, JSON is taken as it is, and anything else is a SignatureError.
    """
    signed = signer is not None and end.status != "cancelled" and holds(end, signer)
    if end.status != "completed":
        return None, decode_error(end.data, trusted=signed) if end.status == "failed" else None
    if not signed and (end.codec != codec.JSON or (end.mac is not None and signer is not None)):
        return None, SignatureError(end.job)
    try:
        if end.codec == codec.JSON:
            return codec.decode(codec.JSON, end.data), None
        return tamed(lambda: codec.decode(end.codec or "", end.data)), None
    except Exception as error:  # noqa: BLE001 (unpickling runs user code)
        return None, error


def failure(job: int, run: int, signer: Signer, error: LostValueError | JobLostError) -> Outcome:
    """Make the failure of a run whose loss a client has noticed: of its value, or of what was to run it."""
    record = encode_error(error)
    mac = signer.sign_end(job, run, "error", record, is_value=False)
    return Outcome(job, run, EndKind.ERROR, "error", record, mac, 0.0)
