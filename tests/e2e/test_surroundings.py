"""The embedded server and local bees in surroundings that are about other things."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest

from tests.jobs import double
from workerbee import WorkerbeeExecutor, embedded

#: What a shell may say to libpq about other servers.
ABOUT_OTHER_SERVERS = {
    "PGAPPNAME": "x",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "LATIN1",
    "PGCONNECT_TIMEOUT": "soon",
    "PGDATABASE": "nowhere",
    "PGDATESTYLE": "German",
    "PGGEQO": "off",
    "PGGSSDELEGATION": "1",
    "PGGSSENCMODE": "require",
    "PGGSSLIB": "nonsense",
    "PGKRBSRVNAME": "x",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGMAXPROTOCOLVERSION": "nonsense",
    "PGMINPROTOCOLVERSION": "nonsense",
    "PGOPTIONS": "-c default_transaction_read_only=on -c statement_timeout=1",
    "PGPASSFILE": "/nowhere",
    "PGPASSWORD": "x",
    "PGPORT": "1",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "somebody",
    "PGREQUIRESSL": "1",
    "PGSERVICEFILE": "/nowhere",
    "PGSSLCERT": "/nowhere",
    "PGSSLCERTMODE": "require",
    "PGSSLCRL": "/nowhere",
    "PGSSLCRLDIR": "/nowhere",
    "PGSSLKEY": "/nowhere",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLROOTCERT": "system",
    "PGSSLSNI": "nonsense",
    "PGSYSCONFDIR": "/nowhere",
    "PGTARGETSESSIONATTRS": "standby",
    "PGTZ": "Asia/Kathmandu",
    "PGUSER": "nobody",
}
#: The same, when a program says it after it has begun with the embedded server.
TOO_LATE = {"PGHOST": "nowhere.invalid", "PGHOSTADDR": "192.0.2.1"}


def test_no_word_about_other_servers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server's connection string says all that it needs, whatever single variable says else."""
    with closing(embedded.start()) as server:
        for name, value in (ABOUT_OTHER_SERVERS | TOO_LATE).items():
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                with closing(psycopg2.connect(server.dsn)) as connection, connection.cursor() as cursor:
                    cursor.execute("SHOW default_transaction_read_only")
                    assert cursor.fetchone() == ("off",), name


def test_executor_beside_words_about_other_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients and local bees use it too, with all of that in their environment."""
    for name, value in ABOUT_OTHER_SERVERS.items():
        monkeypatch.setenv(name, value)
    with WorkerbeeExecutor(1, jobset_id="surrounded") as executor:
        assert executor.submit(double, 3).result(60) == 6
        assert [row["result"] for row in executor.results()] == [6]
