-- The tables of one jobset. Their rows are written once and never changed, so a jobset makes no dead
-- rows however often its jobs are tried, and dropping it is a DROP.

-- name: make_tables
-- The digest says what a call is (NULL: it is never taken for another one); the key is the digest of
-- input_data['id'] of jobs that add_job(s) brought.
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
-- In an order that needs no padding: there is one for each job.
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
    error    json
);
CREATE INDEX {attempt_job} ON {attempt} (job, run);
-- It has no key, and is updated: who publishes all tables would have that refused.
ALTER TABLE {attempt} REPLICA IDENTITY FULL;
CREATE TABLE {part} (
    job      bigint NOT NULL,
    run      integer NOT NULL,
    token    uuid NOT NULL,
    seq      integer NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (job, run, token, seq)
);
-- Not compressed: arrays of numbers took the server seventeen times as long as their copying does.
ALTER TABLE {part} ALTER data SET STORAGE EXTERNAL;

-- name: make_view
-- What a person sees who selects from the jobset by its name: one row a job. What belongs to a job is looked up for
-- it, and of headers only the held ones are looked at, so that a LIMIT reads little however many jobs there are. A
-- dropped jobset's view may still be there, if somebody was reading it then.
DROP VIEW IF EXISTS {view};
CREATE VIEW {view} AS
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
            ELSE 'waiting' END AS status
  FROM {job} j
  LEFT JOIN LATERAL (SELECT max(run) AS run FROM {run} WHERE job = j.id) r ON true
  LEFT JOIN {outcome} o ON o.job = j.id AND o.run = COALESCE(r.run, 1)
  LEFT JOIN (SELECT u.job, h.run, u.n, h.bee, h.claimed_at, h.started
               FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs) WITH ORDINALITY u (job, n)
              WHERE h.jobset = {number} AND h.claim IS NOT NULL AND h.copy_of IS NULL) b
         ON b.job = j.id AND b.run = COALESCE(r.run, 1) AND o.status IS NULL
  LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE kind <> 'late')::integer AS n, max(at) AS at,
              count(*) FILTER (WHERE kind IN ('failed', 'error', 'died'))::integer AS n_failed
         FROM {attempt} WHERE job = j.id AND run = COALESCE(r.run, 1)) a ON true;
