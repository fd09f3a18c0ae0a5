"""The only room that speaks SQL: catalogue, client and bee verbs, each one named query."""

from workerbee.store.bee import BeeStore, Limits, Scope
from workerbee.store.catalogue import BeeFacts, Catalogue, Counts, Remaining
from workerbee.store.client import ClientStore, SameCall
from workerbee.store.connection import (
    QUERY_TIMEOUT,
    Connection,
    Wake,
    backoff,
    conninfo,
    described,
    gone,
    jitter,
    passing,
    refused,
    retrying,
    unstorable,
)
from workerbee.store.hints import Pace, parse_hint, results_hint

__all__ = [
    "QUERY_TIMEOUT",
    "BeeFacts",
    "BeeStore",
    "Catalogue",
    "ClientStore",
    "Connection",
    "Counts",
    "Limits",
    "Pace",
    "Remaining",
    "SameCall",
    "Scope",
    "Wake",
    "backoff",
    "conninfo",
    "described",
    "gone",
    "jitter",
    "parse_hint",
    "passing",
    "refused",
    "results_hint",
    "retrying",
    "unstorable",
]
