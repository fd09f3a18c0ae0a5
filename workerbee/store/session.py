"""What a session of ours is told, so that our queries mean the same on every server and in every process."""

from __future__ import annotations

import json

import psycopg2
from psycopg2 import extensions

# What our queries mean must depend neither on who may create functions and operators where, nor on what the server,
# the database or the user has for a default. Over a direct connection it is set once, else in each transaction.
SESSION = (
    "SET search_path = pg_catalog, pg_temp; SET array_nulls = on;"
    " SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; "
)
TRANSACTION = (
    "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL array_nulls = on;"
    " SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
)
# A transaction that begins with this is ended neither for what it takes nor for the pauses in it.
BEGIN_UNLIMITED = (
    "BEGIN; SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN"
    " ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
)
# A prepared plan stays while the tables grow: it must never be one that was good for few rows, whenever somebody's
# ANALYZE saw them. What we ask for is found by an index and comes in its order: nothing is read as a whole, or sorted
# to have its front.
PLANS = "SELECT " + ", ".join(
    f"pg_catalog.set_config('{name}', '{value}', false)"
    for name, value in {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
    }.items()
)
# What psycopg2 makes of a value is the whole process's to change, unless a connection has a say of its own.
CASTERS = (
    extensions.new_type((114, 3802), "workerbee json", lambda text, _: None if text is None else json.loads(text)),
    extensions.new_type((2950, 2951), "workerbee uuid", lambda text, _: text),
    extensions.BOOLEAN,
    extensions.INTEGER,
    extensions.LONGINTEGER,
    extensions.FLOAT,
    extensions.DECIMAL,
    extensions.UNICODE,
    psycopg2.BINARY,
    extensions.BOOLEANARRAY,
    extensions.INTEGERARRAY,
    extensions.LONGINTEGERARRAY,
    extensions.FLOATARRAY,
    extensions.DECIMALARRAY,
    extensions.UNICODEARRAY,
    extensions.BINARYARRAY,
    extensions.PYDATETIMETZ,
)
