"""The only room that speaks SQL. What a catalogue, a client or a bee does is a method, with a named query each.

Readers have modules of their own, `reader` and `seen`: a bee, which doesn't need them, starts sooner.
"""

from workerbee.store.answers import Cancelled, Result, Run, SameCall
from workerbee.store.bee import MOST_TEXT_BYTES, UNREAD, BeeStore, Fits, KeptText, Limits, Scope, ShowRequest
from workerbee.store.catalogue import BeeFacts, Catalogue, Counts, Maker, Remaining
from workerbee.store.client import ClientStore
from workerbee.store.connection import QUERY_SECONDS, Connection
from workerbee.store.dsn import dsn_parts, has_password, make_dsn
from workerbee.store.hints import HintThrottle, parse_hint, results_hint
from workerbee.store.patience import backoff, jitter, retrying
from workerbee.store.patient import PatientConnection
from workerbee.store.trouble import is_dropped, is_forbidden, is_passing, is_standby, is_too_slow, is_unstorable

__all__ = [
    "MOST_TEXT_BYTES",
    "QUERY_SECONDS",
    "UNREAD",
    "BeeFacts",
    "BeeStore",
    "Cancelled",
    "Catalogue",
    "ClientStore",
    "Connection",
    "Counts",
    "Fits",
    "HintThrottle",
    "KeptText",
    "Limits",
    "Maker",
    "PatientConnection",
    "Remaining",
    "Result",
    "Run",
    "SameCall",
    "Scope",
    "ShowRequest",
    "backoff",
    "dsn_parts",
    "has_password",
    "is_dropped",
    "is_forbidden",
    "is_passing",
    "is_standby",
    "is_too_slow",
    "is_unstorable",
    "jitter",
    "make_dsn",
    "parse_hint",
    "results_hint",
    "retrying",
]
