"""The only room that speaks SQL: catalogue, client and bee verbs, each one named query."""

from workerbee.store.bee import BeeStore, Limits, Scope
from workerbee.store.catalogue import BeeFacts, Catalogue, Counts, Maker, Remaining
from workerbee.store.client import Cancelled, ClientStore, Result, SameCall
from workerbee.store.connection import QUERY_TIMEOUT, Connection, PatientConnection
from workerbee.store.dsn import conninfo, described, has_password
from workerbee.store.hints import Pace, parse_hint, results_hint
from workerbee.store.patience import backoff, jitter, retrying
from workerbee.store.reader import (
    BeeRow,
    BegunRow,
    CauseRow,
    Event,
    JobRow,
    JobsetReader,
    JobsetRow,
    Progress,
    Reader,
    RunFacts,
)
from workerbee.store.trouble import is_dropped, is_forbidden, is_passing, is_unstorable
from workerbee.store.wake import Wake

__all__ = [
    "QUERY_TIMEOUT",
    "BeeFacts",
    "BeeRow",
    "BeeStore",
    "BegunRow",
    "Cancelled",
    "Catalogue",
    "CauseRow",
    "ClientStore",
    "Connection",
    "Counts",
    "Event",
    "JobRow",
    "JobsetReader",
    "JobsetRow",
    "Limits",
    "Maker",
    "Pace",
    "PatientConnection",
    "Progress",
    "Reader",
    "Remaining",
    "Result",
    "RunFacts",
    "SameCall",
    "Scope",
    "Wake",
    "backoff",
    "conninfo",
    "described",
    "has_password",
    "is_dropped",
    "is_forbidden",
    "is_passing",
    "is_unstorable",
    "jitter",
    "parse_hint",
    "results_hint",
    "retrying",
]
