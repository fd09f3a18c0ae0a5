-- Version 1, as it was: the tables of a jobset, and what its clients and bees said. Nothing here changes any more.

-- name: make_tables
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
ALTER TABLE {attempt} REPLICA IDENTITY FULL;
CREATE TABLE {part} (
    job      bigint NOT NULL,
    run      integer NOT NULL,
    token    uuid NOT NULL,
    seq      integer NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (job, run, token, seq)
);
ALTER TABLE {part} ALTER data SET STORAGE EXTERNAL;

-- name: make_view
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

-- name: create_jobset
INSERT INTO workerbee."jobset$" (id, uuid, key, speculate, client, seen_at)
VALUES (%(id)s, %(uuid)s, %(key)s, %(speculate)s, %(client)s,
        CASE WHEN %(client)s::uuid IS NOT NULL THEN now() END)
ON CONFLICT (id) WHERE dropped_at IS NULL AND id IS NOT NULL DO NOTHING
RETURNING number;

-- name: reserve_jobs
UPDATE workerbee."jobset$" SET next_job = next_job + %(n)s
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING next_job - %(n)s, {durably};

-- name: beat
WITH counted AS (
    SELECT count(*) AS n FROM (SELECT FROM workerbee."bee$" WHERE lease_until > now() LIMIT 100) b
), beat AS (
    INSERT INTO workerbee."bee$" AS b (incarnation, jobset, host, pid, python, runners, lease_until,
                                       backend, backend_start, resting)
    SELECT %(bee)s, %(jobset)s, %(host)s, %(pid)s, %(python)s, %(runners)s,
           now() + make_interval(secs => %(lease)s), %(backend)s,
           (SELECT backend_start FROM pg_stat_get_activity(%(backend)s::integer)
             WHERE %(backend)s::integer IS NOT NULL), %(resting)s
    ON CONFLICT (incarnation) DO UPDATE
       SET seen_at = now(), lease_until = excluded.lease_until, resting = excluded.resting,
           backend = excluded.backend, backend_start = excluded.backend_start,
           served_since = CASE WHEN (b.backend, b.backend_start)
                                    IS DISTINCT FROM (excluded.backend, excluded.backend_start)
                                 OR now() NOT BETWEEN b.seen_at AND b.lease_until
                                 OR now() - b.seen_at > GREATEST(interval '2 seconds', (b.lease_until - b.seen_at) / 3)
                               THEN now() ELSE b.served_since END
    RETURNING given_up_at IS NOT NULL AS given_up, set_config('synchronous_commit', 'off', true)
)
SELECT given_up, extract(epoch FROM now())::double precision,
       CASE WHEN n < 100 THEN n ELSE GREATEST(n, (
           SELECT reltuples::bigint FROM pg_class WHERE oid = 'workerbee."bee$"'::regclass)) END AS n_bees
  FROM beat, counted;

-- name: claim
WITH allowed AS (
    SELECT FROM workerbee."jobset$"
     WHERE number = {number} AND dropped_at IS NULL
       AND (seen_at IS NULL OR seen_at BETWEEN now() - interval '10 seconds' AND now() + interval '10 seconds')
       AND {here}
), ready AS MATERIALIZED (
    SELECT id, function, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY priority DESC, place LIMIT %(headers)s FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT id, function, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at <= now()
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
), offered AS (
    SELECT f.*, cardinality(jobs) AS size, COALESCE(k.cost, 1) AS cost
      FROM (SELECT * FROM ready UNION ALL SELECT * FROM due
             ORDER BY priority DESC, place, id LIMIT %(headers)s) f  -- what is due keeps behind what waits longer
      LEFT JOIN unnest(%(functions)s::integer[], %(costs)s::double precision[]) AS k (function, cost) USING (function)
), ahead AS (
    SELECT o.*, sum(size) OVER w - size AS before, sum(size * cost) OVER w - size * cost AS spent
      FROM offered o WINDOW w AS (ORDER BY priority DESC, place, id)
), front AS (
    SELECT id, jobs, size, before,
           GREATEST(0, LEAST(size, %(n)s - before,
                             ceil((%(budget)s::double precision - spent) / cost - 1e-6)))::integer AS room
      FROM ahead
), taken AS (
    UPDATE workerbee."batch$" b
       SET bee = %(bee)s, claim = %(claim)s, claimed_at = now(), due_at = NULL,
           started = LEAST(f.size, GREATEST(0, %(start)s - f.before))
      FROM front f WHERE b.id = f.id AND f.room = f.size
    RETURNING b.*
), cut AS (
    UPDATE workerbee."batch$" b SET jobs = b.jobs[f.room + 1:], due_at = NULL
      FROM front f WHERE b.id = f.id AND f.room > 0 AND f.room < f.size
    RETURNING b.*, f.jobs[:f.room] AS head, f.before
), ripe AS (
    UPDATE workerbee."batch$" b SET due_at = NULL
     WHERE b.id IN (SELECT id FROM due) AND b.id NOT IN (SELECT id FROM front WHERE room > 0)
), part AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate,
                                    again, jobs, bee, claim, claimed_at, started)
    SELECT jobset, function, run, priority, place, timeout, max_attempts, speculate, again, head,
           %(bee)s, %(claim)s, now(), LEAST(cardinality(head), GREATEST(0, %(start)s - before))
      FROM cut
    RETURNING *
), held AS (
    TABLE taken UNION ALL TABLE part
)
SELECT h.id, h.function, h.run, h.timeout, h.max_attempts, h.again, j.n <= h.started,
       j.id, j.codec, j.input, j.payload, j.mac,
       j.past[1], j.past[2], (SELECT set_config('synchronous_commit', 'off', true)) IS NULL
  FROM held h
  LEFT JOIN LATERAL (
      SELECT u.n, d.*,
             CASE WHEN h.again THEN (
                 SELECT ARRAY[count(*), count(DISTINCT host) FILTER (WHERE kind = 'lost' AND alone)]
                   FROM {attempt} a WHERE a.job = u.job AND a.run = h.run AND a.kind <> 'late') END AS past
        FROM unnest(h.jobs) WITH ORDINALITY AS u (job, n)
       CROSS JOIN LATERAL (SELECT id, codec, input::text, payload, mac FROM {job} WHERE id = u.job LIMIT 1) d
       WHERE NOT h.again OR (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
  ) j ON true
 ORDER BY h.priority DESC, h.place, h.id, j.n;

-- name: complete
WITH given AS (
    SELECT job::bigint, run::integer, codec, output::json, decode(payload, 'hex') AS payload,
           decode(mac, 'hex') AS mac, duration::real
      FROM unnest(string_to_array(%(job)s, E'\n'), string_to_array(%(run)s, E'\n'),
                  string_to_array(%(codec)s, E'\n'), string_to_array(%(output)s, E'\n', ''),
                  string_to_array(%(payload)s, E'\n', ''), string_to_array(%(mac)s, E'\n', ''),
                  string_to_array(%(duration)s, E'\n'))
           AS g (job, run, codec, output, payload, mac, duration)
), closed AS (
    DELETE FROM workerbee."batch$" b
     WHERE b.id = ANY (%(closed)s::bigint[]) AND b.bee IS NOT DISTINCT FROM %(bee)s
       AND EXISTS (SELECT FROM unnest(%(closed)s::bigint[], %(claims)s::uuid[]) AS c (id, claim)
                    WHERE c.id = b.id AND c.claim IS NOT DISTINCT FROM b.claim)
    RETURNING b.id
), stored AS (
    INSERT INTO {outcome} (job, run, status, codec, output, payload, mac, bee, duration)
    SELECT job, run, 'completed', codec, output, payload, mac, %(bee)s, duration FROM given
     WHERE (SELECT count(*) FROM closed) IS NOT NULL AND {here}
     ORDER BY job, run
    {or_nothing} RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, completed)
    SELECT {number}, %(bee)s, count(*) FROM stored HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET completed = c.completed + excluded.completed
)
SELECT n, CASE WHEN n > 0 AND %(hint)s::text IS NOT NULL
               THEN pg_notify('workerbee$done$' || {number},
                              CASE WHEN n = (SELECT count(*) FROM given) THEN %(hint)s
                                   ELSE split_part(%(hint)s, E'\n', 1) END)::text END,
       {durably}
  FROM (SELECT count(*) AS n FROM stored) s;
