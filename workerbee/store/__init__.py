"""The only room that speaks SQL: catalogue, client and bee verbs, each one named query."""

from workerbee.store.answers import Cancelled, Result, SameCall
from workerbee.store.bee import BeeStore, Limits, Scope
from workerbee.store.catalogue import BeeFacts, Catalogue, Counts, Maker, Remaining
from workerbee.store.client import ClientStore
from workerbee.store.connection import QUERY_TIMEOUT, Connection, PatientConnection
from workerbee.store.dsn import conninfo, described, has_password
from workerbee.store.hints import Pace, parse_hint, results_hint
from workerbee.store.patience import backoff, jitter, retrying
from workerbee.store.reader import JobsetReader, Reader
from workerbee.store.seen import (
    STATUSES,
    BeeRow,
    BegunRow,
    CauseRow,
    DepartedRow,
    Event,
    JobPage,
    JobRow,
    JobsetRow,
    Minute,
    Progress,
    RunFacts,
    TextRow,
    Wanted,
)
from workerbee.store.trouble import is_dropped, is_forbidden, is_passing, is_unstorable
from workerbee.store.wake import Wake

__all__ = [
    "QUERY_TIMEOUT",
    "STATUSES",
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
    "DepartedRow",
    "Event",
    "JobPage",
    "JobRow",
    "JobsetReader",
    "JobsetRow",
    "Limits",
    "Maker",
    "Minute",
    "Pace",
    "PatientConnection",
    "Progress",
    "Reader",
    "Remaining",
    "Result",
    "RunFacts",
    "SameCall",
    "Scope",
    "TextRow",
    "Wake",
    "Wanted",
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
