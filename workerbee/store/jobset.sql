-- The tables of one jobset. Their rows are written once and never changed, so a jobset makes no dead
-- rows however often its jobs are tried, and dropping it is a DROP.

-- name: make_tables
-- Calls with one digest are one job; a call without a digest is never taken for another. The key is the digest of
-- input_data['id'], of jobs that add_job(s) brought.
CREATE TABLE {job} (
    id        bigint PRIMARY KEY,
    digest    bytea,
    key       bytea,
    function  integer NOT NULL DEFAULT 0,
    codec     text NOT NULL,
    input     json,
    payload   bytea,
    mac       bytea
);
CREATE UNIQUE INDEX {job_digest} ON {job} (digest) WHERE digest IS NOT NULL;
CREATE UNIQUE INDEX {job_key} ON {job} (key) WHERE key IS NOT NULL;
CREATE TABLE {function} (
    number    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest    bytea NOT NULL UNIQUE,
    identity  bytea NOT NULL,
    name      text NOT NULL,
    codec     text NOT NULL,
    body      bytea NOT NULL,
    python    text NOT NULL,
    mac       bytea NOT NULL,
    added_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE {run} (
    job       bigint NOT NULL,
    run       integer NOT NULL CHECK (run > 1),
    opened_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, run)
);
-- There is a row for each job, so the columns are in an order that needs no padding. `cause` is the digest of a
-- failure's cause.
CREATE TABLE {outcome} (
    job          bigint NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    run          integer NOT NULL,
    status       workerbee."status$" NOT NULL,
    duration     real,                                   -- seconds
    bee          uuid,
    codec        text,
    output       json,
    payload      bytea,
    mac          bytea,
    cause        bytea,
    PRIMARY KEY (job, run)
);
CREATE TABLE {attempt} (
    job      bigint NOT NULL,
    run      integer NOT NULL,
    kind     text NOT NULL CHECK (kind IN ('failed', 'error', 'died', 'lost', 'away', 'copy', 'late')),
    bee      uuid NOT NULL,
    host     text NOT NULL,
    alone    boolean NOT NULL DEFAULT false,
    at       timestamptz NOT NULL DEFAULT now(),
    error    json,
    cause    bytea
);
CREATE INDEX {attempt_job} ON {attempt} (job, run);
-- The table has no key, and logical replication of all tables would refuse its updates.
ALTER TABLE {attempt} REPLICA IDENTITY FULL;
CREATE TABLE {part} (
    job      bigint NOT NULL,
    run      integer NOT NULL,
    token    uuid NOT NULL,
    seq      integer NOT NULL,
    data     bytea NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job, run, token, seq)
);
-- Parts aren't compressed: for arrays of numbers that took the server seventeen times as long as copying them.
ALTER TABLE {part} ALTER data SET STORAGE EXTERNAL;

-- name: add_columns
-- Add columns to the tables of a jobset that a former version has made.
ALTER TABLE {outcome} ADD COLUMN IF NOT EXISTS cause bytea;
ALTER TABLE {attempt} ADD COLUMN IF NOT EXISTS cause bytea;
ALTER TABLE {attempt} REPLICA IDENTITY FULL;
ALTER TABLE {part} ADD COLUMN IF NOT EXISTS at timestamptz NOT NULL DEFAULT now();

-- name: add_tables
-- Add what the second version has brought. A job that completes and prints nothing has no row in any of this.
CREATE INDEX IF NOT EXISTS {outcome_badly} ON {outcome} (status, job) INCLUDE (run, cause, completed_at)
    WHERE status <> 'completed';
CREATE INDEX IF NOT EXISTS {outcome_cause} ON {outcome} (cause, job) WHERE status = 'failed';
CREATE INDEX IF NOT EXISTS {attempt_cause} ON {attempt} (cause, job) WHERE cause IS NOT NULL;
-- What an execution has printed: its first `head` bytes and its last ones. `stdout_size` and `stderr_size` count all of
-- it. The claim tells executions apart.
CREATE TABLE IF NOT EXISTS {text} (
    job         bigint NOT NULL,
    run         integer NOT NULL,
    claim       uuid NOT NULL,
    bee         uuid NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    head        integer NOT NULL DEFAULT 0,
    stdout      bytea NOT NULL DEFAULT '',
    stderr      bytea NOT NULL DEFAULT '',
    stdout_size bigint NOT NULL DEFAULT 0,
    stderr_size bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job, run, claim)
);
COMMENT ON TABLE {job} IS 'The jobs of a jobset: calls, which never change.';
COMMENT ON TABLE {function} IS 'The functions that its jobs call, signed.';
COMMENT ON TABLE {run} IS 'Runs after the first: a failed or cancelled job that was started anew.';
COMMENT ON TABLE {outcome} IS 'How runs have ended, one row a run, which never changes.';
COMMENT ON TABLE {attempt} IS 'Executions that did not end their run: failures, losses, copies.';
COMMENT ON TABLE {part} IS 'Large values and functions, in parts.';
COMMENT ON TABLE {text} IS 'What executions have printed, as far as it is kept.';
COMMENT ON INDEX workerbee."job${number}_pkey" IS 'Jobs by id, in the order of submission.';
COMMENT ON INDEX workerbee."job_digest${number}" IS 'The same call is one job.';
COMMENT ON INDEX workerbee."job_key${number}" IS 'One input has an ''id''.';
COMMENT ON INDEX workerbee."function${number}_pkey" IS 'Functions by number.';
COMMENT ON INDEX workerbee."function${number}_digest_key" IS 'Each function is stored once.';
COMMENT ON SEQUENCE workerbee."function${number}_number_seq" IS 'The numbers of functions.';
COMMENT ON INDEX workerbee."run${number}_pkey" IS 'Each run is opened once.';
COMMENT ON INDEX workerbee."outcome${number}_pkey" IS 'A run ends once.';
COMMENT ON INDEX workerbee."outcome_badly${number}" IS 'Runs that failed or were cancelled, by job.';
COMMENT ON INDEX workerbee."outcome_cause${number}" IS 'Failed runs by their cause.';
COMMENT ON INDEX workerbee."attempt_job${number}" IS 'Attempts by job.';
COMMENT ON INDEX workerbee."attempt_cause${number}" IS 'Failed attempts by their cause.';
COMMENT ON INDEX workerbee."part${number}_pkey" IS 'The parts of a value in their order.';
COMMENT ON INDEX workerbee."text${number}_pkey" IS 'One text an execution.';

-- name: grant_text
-- Give the rights on the attempts for the texts too: they were granted before there was a table of texts.
DO $body$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
          FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
         WHERE c.oid = 'workerbee."attempt${number}"'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON workerbee."text${number}" TO %s', given.privilege_type, given.grantee);
    END LOOP;
END $body$;

-- name: uncaused
-- List a page of failures that a former version has recorded.
SELECT job, run, output::text FROM {outcome}
 WHERE status = 'failed' AND job > %(after)s AND codec = 'error' AND cause IS NULL
 ORDER BY job LIMIT %(n)s;

-- name: set_causes
UPDATE {outcome} o SET cause = g.cause
  FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[], %(causes)s::bytea[]) AS g (job, run, cause)
 WHERE o.job = g.job AND o.run = g.run;

-- name: former_words
-- Take out what bees said in this jobset: the former version kept it as parts of job 0, beside large functions.
DELETE FROM {part} WHERE job = 0 AND (run IN (1, 2) OR (run = 0 AND seq = 0 AND octet_length(data) < 1000))
RETURNING run, token, seq, data;

-- name: keep_words
INSERT INTO workerbee."service$" (jobset, bee, host, refuses, doubts)
VALUES ({number}, %(bee)s, %(host)s, %(refuses)s::jsonb, %(doubts)s::integer[]) ON CONFLICT DO NOTHING;

-- name: count_revived
-- Count the runs opened after a cancelled one, which the former version didn't.
INSERT INTO workerbee."counter$" (jobset, writer, revived)
SELECT {number}, '00000000-0000-0000-0000-000000000000', count(*) FROM {run} r
 WHERE (SELECT o.status FROM {outcome} o WHERE o.job = r.job AND o.run = r.run - 1) = 'cancelled'
ON CONFLICT (jobset, writer) DO UPDATE SET revived = excluded.revived;

-- name: name_taken
-- Tell what else has the name of the view. A view of ours may be left of a jobset that was dropped while somebody read
-- it.
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                      WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' ELSE 'table' END
  FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace AND s.nspname = 'workerbee'
 WHERE c.relname = %(name)s AND NOT (c.relkind = 'v' AND pg_get_viewdef(c.oid) LIKE '%%"attempt$%%');

-- name: drop_view
-- Drop the view of a jobset that was dropped while somebody was reading it.
DROP VIEW IF EXISTS {view};

-- name: make_view
-- Show a person who selects from the jobset by its name one row a job. What belongs to a job is looked up for
-- it, and of headers only the held ones are looked at, so that a LIMIT reads little however many jobs there are.
-- Columns are only ever added at the end, so that the view can be replaced while other views use it.
CREATE OR REPLACE VIEW {view} AS
SELECT j.id,
       j.input AS input_data,
       o.output AS output_data,
       COALESCE(a.n, 0) + (o.status IS NOT DISTINCT FROM 'completed')::integer
           + (o.status IS NULL AND b.bee IS NOT NULL AND b.n <= b.started)::integer AS n_claims,
       COALESCE(a.n_failed, 0) AS n_failed_attempts,
       COALESCE(o.completed_at - make_interval(secs => o.duration), b.claimed_at, a.at) AS time_last_claimed,
       CASE WHEN o.status = 'completed' THEN o.completed_at END AS time_last_completed,
       make_interval(secs => o.duration) AS job_duration,
       CASE WHEN o.status IS NOT NULL THEN o.status::text
            WHEN b.bee IS NOT NULL AND b.n <= b.started THEN 'running'
            WHEN a.n_failed > 0 THEN 'retrying'
            ELSE 'waiting' END AS status,
       (SELECT f.name FROM {function} f WHERE f.number = j.function) AS function,
       COALESCE((SELECT s.host FROM workerbee."service$" s
                  WHERE s.jobset = {number} AND s.bee = COALESCE(o.bee, b.bee)),
                (SELECT h.host FROM workerbee."bee$" h WHERE h.incarnation = COALESCE(o.bee, b.bee)), a.host) AS host,
       COALESCE(o.bee, b.bee, a.bee) AS bee,
       CASE WHEN o.status = 'completed' THEN NULL
            WHEN o.codec = 'error' THEN workerbee."said$"(o.output)
            ELSE workerbee."said$"(a.error) END AS error
  FROM {job} j
  LEFT JOIN LATERAL (SELECT max(run) AS run FROM {run} WHERE job = j.id) r ON true
  LEFT JOIN {outcome} o ON o.job = j.id AND o.run = COALESCE(r.run, 1)
  LEFT JOIN LATERAL (
       -- What bees hold is hashed once, when the first open job is looked up. So a job that no bee holds costs one
       -- probe, however much is held, and whatever the planner knows of it.
       SELECT array_position(jobs, j.id) AS n, bee, claimed_at, started FROM workerbee."batch$"
        WHERE o.status IS NULL
          AND j.id IN (SELECT unnest(jobs) FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL)
          AND jobset = {number} AND claim IS NOT NULL AND copy_of IS NULL
          AND run = COALESCE(r.run, 1) AND j.id BETWEEN jobs[1] AND jobs[cardinality(jobs)] AND j.id = ANY (jobs)
        LIMIT 1) b ON true
  LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE kind <> 'late')::integer AS n, max(at) AS at,
              count(*) FILTER (WHERE kind IN ('failed', 'error', 'died'))::integer AS n_failed,
              (array_agg(host ORDER BY at DESC))[1] AS host, (array_agg(bee ORDER BY at DESC))[1] AS bee,
              (array_agg(error ORDER BY at DESC) FILTER (WHERE error IS NOT NULL))[1] AS error
         FROM {attempt} WHERE job = j.id AND run = COALESCE(r.run, 1)) a ON true;
COMMENT ON VIEW {view} IS
    'A jobset, one row a job. The command "workerbee drop", with this name, deletes it with all that it holds; '
    'dropping the view leaves the tables.';
