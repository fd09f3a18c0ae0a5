-- What all jobsets share. A name with a $ can't be a jobset's id, so the readable views, which bear
-- the bare ids, never clash with these tables.

CREATE TYPE workerbee."status$" AS ENUM ('completed', 'failed', 'cancelled');

CREATE TABLE workerbee."jobset$" (
    number      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text CHECK (id ~ '^[a-z0-9_]{1,48}$'),  -- NULL: temporary, ends with its client
    uuid        uuid NOT NULL UNIQUE,                   -- what signatures are bound to
    key         text,                                   -- fingerprint of the key that signs here
    speculate   boolean NOT NULL,
    next_job    bigint NOT NULL DEFAULT 1 CHECK (next_job > 0),
    client      uuid,                                   -- the temporary jobset's client, and
    seen_at     timestamptz,                            -- when it was last alive
    created_at  timestamptz NOT NULL DEFAULT now(),
    dropped_at  timestamptz,                            -- the tables may still be there: see sweep
    CHECK ((id IS NULL) = (client IS NOT NULL)),
    CHECK ((client IS NULL) = (seen_at IS NULL))
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX "jobset$id" ON workerbee."jobset$" (id) WHERE dropped_at IS NULL AND id IS NOT NULL;

-- The header of a batch of jobs: the only rows that change while jobs are run. A job that has no
-- outcome yet is in exactly one batch (and in one more for each speculative copy of it). What rows of this
-- table, of jobs and of outcomes can't be isn't written here: PostgreSQL reads constraints anew for each statement
-- that inserts or changes a row, which was 5 % of a round trip. The tests' databases have them (tests/impossible.sql).
CREATE SEQUENCE workerbee."place$";
CREATE TABLE workerbee."batch$" (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jobset       integer NOT NULL,
    function     integer NOT NULL,                      -- 0: the jobs bring no function
    run          integer NOT NULL,
    priority     integer NOT NULL DEFAULT 0,
    place        bigint NOT NULL DEFAULT nextval('workerbee."place$"'),
    due_at       timestamptz,                           -- NULL: at once
    timeout      double precision,
    max_attempts integer,
    speculate    boolean NOT NULL DEFAULT true,
    again        boolean NOT NULL DEFAULT false,        -- some of these jobs may have an outcome
    jobs         bigint[] NOT NULL,
    bee          uuid,                                  -- the holder: its incarnation and
    claim        uuid,                                  -- the claim it took these jobs by
    claimed_at   timestamptz,
    started      integer NOT NULL DEFAULT 0,            -- so many of the first jobs may have begun
    marked_at    timestamptz,                           -- when that mark was last moved after the claim
    copy_of      bigint                                 -- a speculative copy of a job in that batch
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX "batch$ready" ON workerbee."batch$" (jobset, priority DESC, place)
    WHERE claim IS NULL AND due_at IS NULL;
CREATE INDEX "batch$due" ON workerbee."batch$" (jobset, due_at) WHERE claim IS NULL AND due_at IS NOT NULL;
CREATE INDEX "batch$held" ON workerbee."batch$" (jobset, bee) WHERE claim IS NOT NULL;

CREATE TABLE workerbee."bee$" (
    incarnation   uuid PRIMARY KEY,
    jobset        integer,                              -- NULL: serves them all
    host          text NOT NULL,
    pid           integer NOT NULL,
    python        text NOT NULL,
    runners       integer NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    lease_until   timestamptz NOT NULL,
    served_since  timestamptz NOT NULL DEFAULT now(),   -- heartbeats without a gap since then
    backend       integer,                              -- its server process, as the bee sees it
    backend_start timestamptz,                          -- (NULL behind a pooler)
    resting       boolean NOT NULL DEFAULT false,       -- all that it tried last has failed
    given_up_at   timestamptz                           -- others took back what it had begun
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

-- What happened, one row a writer and jobset, so that no two processes ever wait for a counter.
CREATE TABLE workerbee."counter$" (
    jobset      integer NOT NULL,
    writer      uuid NOT NULL,
    added       bigint NOT NULL DEFAULT 0,
    reopened    bigint NOT NULL DEFAULT 0,
    completed   bigint NOT NULL DEFAULT 0,
    failed      bigint NOT NULL DEFAULT 0,
    cancelled   bigint NOT NULL DEFAULT 0,
    retried     bigint NOT NULL DEFAULT 0,
    lost        bigint NOT NULL DEFAULT 0,
    speculative bigint NOT NULL DEFAULT 0,
    late        bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (jobset, writer)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
