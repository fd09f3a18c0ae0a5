-- What readers ask of one jobset. Nothing here writes, and SELECT is all the right that it takes. Long values are cut
-- by the server: a page shows their beginning.

-- name: jobs
-- These jobs by id, each with its latest run. Of headers only the held ones are looked at: what isn't in
-- one of them and hasn't ended waits.
WITH running AS MATERIALIZED (
    SELECT DISTINCT ON (u.job, h.run) u.job, h.run, h.bee
      FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
      JOIN unnest(%(ids)s::bigint[]) AS a (job) ON a.job = u.job
     WHERE h.jobset = {number} AND h.claim IS NOT NULL
     ORDER BY u.job, h.run, h.copy_of NULLS FIRST
)
SELECT * FROM (
    SELECT j.id, COALESCE(f.name, '') AS function, l.run,
           COALESCE(o.status::text, CASE WHEN h.bee IS NOT NULL THEN 'running' WHEN a.has_failed THEN 'retrying'
                                         ELSE 'waiting' END) AS status,
           j.codec, left(j.input::text, %(width)s), o.codec,
           left(CASE WHEN o.codec = 'error' THEN workerbee."said$"(o.output) ELSE o.output::text END, %(width)s),
           o.duration::double precision, extract(epoch FROM o.completed_at)::double precision,
           COALESCE(o.bee, h.bee)::text,
           COALESCE((SELECT s.host FROM workerbee."service$" s
                      WHERE s.jobset = {number} AND s.bee = COALESCE(o.bee, h.bee)),
                    (SELECT b.host FROM workerbee."bee$" b WHERE b.incarnation = COALESCE(o.bee, h.bee)),
                    a.host) AS host
      FROM unnest(%(ids)s::bigint[]) AS i (id)
     CROSS JOIN LATERAL (SELECT * FROM {job} WHERE id = i.id LIMIT 1) j
      LEFT JOIN {function} f ON f.number = j.function
     CROSS JOIN LATERAL (SELECT COALESCE(max(run), 1) AS run FROM {run} WHERE job = j.id) l
      LEFT JOIN LATERAL (SELECT * FROM {outcome} WHERE job = j.id AND run = l.run LIMIT 1) o ON true
      LEFT JOIN running h ON h.job = j.id AND h.run = l.run AND o.status IS NULL
      LEFT JOIN LATERAL (
           SELECT bool_or(kind IN ('failed', 'died', 'lost')) AS has_failed,
                  (array_agg(host ORDER BY at DESC))[1] AS host
             FROM {attempt} WHERE job = j.id AND run = l.run) a ON true) page
 WHERE (%(statuses)s::text[] IS NULL OR status = ANY (%(statuses)s))
   AND (%(function)s::text IS NULL OR function = %(function)s) AND (%(host)s::text IS NULL OR host = %(host)s)
 ORDER BY id LIMIT %(n)s;

-- name: seek
-- The next jobs by id that are of this function (NULL: of any), among so many; and how far that is.
SELECT COALESCE(array_agg(id ORDER BY id) FILTER (WHERE fits), '{{}}'), max(id), count(*)
  FROM (SELECT id, %(function)s::text IS NULL
                   OR function = ANY (ARRAY(SELECT number FROM {function} WHERE name = %(function)s)) AS fits
          FROM {job} WHERE id > %(after)s ORDER BY id LIMIT %(look)s) j;

-- name: ended_badly_after
-- Jobs whose latest run failed or was cancelled, by id. Said as a range, so that only the index of such runs has them
-- in this order: a plan made for few outcomes would else do with that of all.
SELECT o.job FROM {outcome} o
 WHERE o.status BETWEEN (%(status)s::text)::workerbee."status$" AND (%(status)s::text)::workerbee."status$"
   AND o.status <> 'completed' AND o.job > %(after)s
   AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
 ORDER BY o.status, o.job LIMIT %(n)s;

-- name: failed_of
-- Jobs whose latest run failed for this cause, by id.
SELECT o.job FROM {outcome} o
 WHERE o.status = 'failed' AND o.cause BETWEEN %(cause)s::bytea AND %(cause)s::bytea AND o.job > %(after)s
   AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
 ORDER BY o.cause, o.job LIMIT %(n)s;

-- name: tried_of
-- Jobs of which an attempt failed for this cause, by id; what became of them then is another matter.
SELECT DISTINCT job FROM {attempt} WHERE cause = %(cause)s::bytea AND job > %(after)s ORDER BY job LIMIT %(n)s;

-- name: open_after
-- Jobs by id that bees have begun, or else those that wait: again, if they are to be tried once more. The jobs of a
-- header are in the order of their ids. So the first n of all are no greater than the last ones of the headers whose
-- first ones come first, as many as hold n.
WITH headers AS MATERIALIZED (
    SELECT p.jobs, p.jobs[cardinality(p.jobs)] AS last,
           CASE WHEN p.jobs[1] > %(after)s THEN p.jobs[1]
                ELSE (SELECT min(u.job) FROM unnest(p.jobs) AS u (job) WHERE u.job > %(after)s) END AS first,
           CASE WHEN p.jobs[1] > %(after)s THEN cardinality(p.jobs)
                ELSE (SELECT count(*) FROM unnest(p.jobs) AS u (job) WHERE u.job > %(after)s) END AS size
      FROM (SELECT jobs, started, again FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL AND %(status)s <> 'running'
             UNION ALL
            SELECT jobs, started, again FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NULL AND due_at IS NOT NULL AND %(status)s <> 'running'
             UNION ALL
            SELECT jobs, started, again FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL) h
     CROSS JOIN LATERAL (SELECT CASE WHEN %(status)s = 'running' THEN h.jobs[1:h.started]
                                     ELSE h.jobs[h.started + 1:] END AS jobs OFFSET 0) p
     WHERE p.jobs[cardinality(p.jobs)] > %(after)s AND (h.again OR %(status)s <> 'retrying')
     ORDER BY first LIMIT %(n)s
), bound AS (
    SELECT max(last) AS last
      FROM (SELECT last, sum(size) OVER (ORDER BY first, last ROWS UNBOUNDED PRECEDING) - size AS before
              FROM headers) r WHERE before < %(n)s
)
SELECT DISTINCT u.job FROM headers h CROSS JOIN bound b CROSS JOIN LATERAL unnest(h.jobs) AS u (job)
 WHERE h.first <= b.last AND u.job > %(after)s AND u.job <= b.last
 ORDER BY u.job LIMIT %(n)s;

-- name: begun_jobs
-- What bees have begun and not closed (NULL: any job), longest first: the job, its run, who has it, and since when at the most.
SELECT u.job, h.run, h.bee::text, b.host, extract(epoch FROM now() - h.claimed_at)::double precision,
       h.copy_of IS NOT NULL
  FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
  LEFT JOIN workerbee."bee$" b ON b.incarnation = h.bee
 WHERE h.jobset = {number} AND h.claim IS NOT NULL
   AND (%(job)s::bigint IS NULL OR u.job = %(job)s)
   AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
 ORDER BY h.claimed_at, u.job LIMIT %(n)s;

-- name: life
-- All that is known of one job's runs, in the order of time: what opened a run, its attempts, its end.
SELECT kind, run, extract(epoch FROM at)::double precision, bee, host, duration, codec, record FROM (
    SELECT 'opened' AS kind, run, opened_at AS at, NULL AS bee, NULL AS host, NULL::double precision AS duration,
           NULL AS codec, NULL AS record
      FROM {run} WHERE job = %(job)s
     UNION ALL
    SELECT kind, run, at, bee::text, host, NULL, 'error', error::text FROM {attempt} WHERE job = %(job)s
     UNION ALL
    SELECT o.status::text, o.run, o.completed_at, o.bee::text, b.host, o.duration, o.codec, o.output::text
      FROM {outcome} o LEFT JOIN workerbee."bee$" b ON b.incarnation = o.bee WHERE o.job = %(job)s) life
 ORDER BY at, run LIMIT %(n)s;

-- name: causes
-- The failed runs that nobody has retried by their cause, the most frequent first, with the newest one of each as an
-- example: functions and hosts of its newest ones, and whether all were counted. Of many, the newest are; of fewer,
-- where it has to be looked up for each whether it was retried.
WITH failed AS (
    SELECT o.cause, o.job, o.completed_at FROM {outcome} o
     WHERE o.status BETWEEN 'failed' AND 'failed' AND o.status <> 'completed'
       AND ((SELECT true FROM {run} LIMIT 1) IS NULL
            OR (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL)
     ORDER BY o.status DESC, o.job DESC LIMIT %(most)s / CASE WHEN EXISTS (SELECT FROM {run}) THEN 5 ELSE 1 END
), causes AS (
    SELECT cause, count(*) AS n, max(job) AS job, min(completed_at) AS first_at, max(completed_at) AS last_at,
           sum(count(*)) OVER () < %(most)s / CASE WHEN EXISTS (SELECT FROM {run}) THEN 5 ELSE 1 END AS is_all
      FROM failed GROUP BY cause ORDER BY n DESC, job DESC LIMIT %(n)s
)
SELECT c.cause, c.n, c.job, extract(epoch FROM c.first_at)::double precision,
       extract(epoch FROM c.last_at)::double precision, e.record, s.functions, s.hosts, c.is_all
  FROM causes c
 CROSS JOIN LATERAL (
       SELECT CASE WHEN codec = 'error' THEN output::text END AS record FROM {outcome}
        WHERE job = c.job AND status = 'failed' ORDER BY run DESC LIMIT 1) e
 CROSS JOIN LATERAL (
       SELECT COALESCE(array_agg(DISTINCT f.name) FILTER (WHERE f.name IS NOT NULL), '{{}}') AS functions,
              COALESCE(array_agg(DISTINCT v.host) FILTER (WHERE v.host IS NOT NULL), '{{}}') AS hosts
         FROM (SELECT job, bee FROM {outcome}
                WHERE status = 'failed' AND cause = c.cause ORDER BY cause DESC, job DESC LIMIT 30) o
         JOIN {job} j ON j.id = o.job LEFT JOIN {function} f ON f.number = j.function
         LEFT JOIN workerbee."service$" v ON v.jobset = {number} AND v.bee = o.bee) s
 ORDER BY c.n DESC, c.job DESC;

-- name: recent_durations
-- How long the jobs took that completed last, as far as ids tell.
SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75, 0.95]) WITHIN GROUP (ORDER BY d.duration)
  FROM (SELECT duration::double precision FROM {outcome} WHERE status = 'completed' AND duration IS NOT NULL
         ORDER BY job DESC LIMIT 500) d;

-- name: progress
-- How many jobs are in which state, by each one's latest run. The counters say how many runs have ended and how, and
-- how many were followed by another; what runs is looked at, so that no job is counted that doesn't have to be.
WITH counted AS (
    SELECT COALESCE(sum(added) + sum(reopened), 0)::bigint AS begun, COALESCE(sum(completed), 0)::bigint AS completed,
           COALESCE(sum(failed), 0)::bigint AS failed, COALESCE(sum(cancelled), 0)::bigint AS cancelled,
           COALESCE(sum(reopened - revived), 0)::bigint AS failed_before, COALESCE(sum(revived), 0)::bigint AS revived
      FROM workerbee."counter$" WHERE jobset = {number}
), running AS (
    SELECT count(DISTINCT u.job) AS n
      FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[:h.started]) AS u (job)
     WHERE h.jobset = {number} AND h.claim IS NOT NULL
       AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
)
SELECT GREATEST(0, c.begun - c.completed - c.failed - c.cancelled - r.n), r.n,
       c.completed, GREATEST(0, c.failed - c.failed_before), GREATEST(0, c.cancelled - c.revived)
  FROM counted c, running r;

-- name: functions
-- What was stored of the functions, without their code, oldest first.
SELECT number, digest, identity, name, codec, python FROM {function} WHERE number > %(after)s
 ORDER BY number LIMIT %(n)s;

-- name: newest
-- The function of the job that was added last.
SELECT function FROM {job} ORDER BY id DESC LIMIT 1;

-- name: legible
-- Of the next jobs by id: the last one; how many there are, and with JSON as input; their completed runs, the same way.
WITH page AS MATERIALIZED (
    SELECT id, payload IS NULL AS is_json FROM {job} WHERE id > %(after)s ORDER BY id LIMIT %(n)s
)
SELECT max(id), count(*), count(*) FILTER (WHERE page.is_json),
       COALESCE(sum(o.completed), 0), COALESCE(sum(o.is_json), 0)
  FROM page CROSS JOIN LATERAL (
       SELECT count(*) AS completed, count(*) FILTER (WHERE payload IS NULL) AS is_json
         FROM {outcome} WHERE job = page.id AND status = 'completed') o;

-- name: run_facts
-- Of the latest run of these jobs: at which attempt it ended, where, and when (seconds since the epoch).
SELECT o.job,
       1 + (SELECT count(*) FROM {attempt} a WHERE a.job = o.job AND a.run = o.run
               AND a.kind IN ('failed', 'error', 'died', 'lost')) - (o.status = 'failed')::integer,
       COALESCE((SELECT s.host FROM workerbee."service$" s WHERE s.jobset = {number} AND s.bee = o.bee),
                (SELECT a.host FROM {attempt} a WHERE a.job = o.job AND a.run = o.run AND a.bee = o.bee LIMIT 1)),
       extract(epoch FROM o.completed_at)::float8, o.duration::float8
  FROM {outcome} o
 WHERE o.job = ANY (%(jobs)s::bigint[])
   AND o.run = COALESCE((SELECT max(r.run) FROM {run} r WHERE r.job = o.job), 1);

-- name: history
-- How the jobset went: the counters' sums by the minute, newest first.
SELECT extract(epoch FROM minute)::double precision, added, reopened, completed, failed, cancelled, retried, lost,
       speculative, late, bees, runners
  FROM workerbee."history$"
 WHERE jobset = {number} AND minute >= to_timestamp(%(since)s) ORDER BY minute DESC LIMIT %(n)s;

-- name: history_steps
-- The same, but of each step of so many seconds only the last minute.
SELECT extract(epoch FROM minute)::double precision, added, reopened, completed, failed, cancelled, retried, lost,
       speculative, late, bees, runners
  FROM (SELECT DISTINCT ON (floor(extract(epoch FROM minute) / %(step)s)) *
          FROM workerbee."history$" WHERE jobset = {number} AND minute >= to_timestamp(%(since)s)
         ORDER BY floor(extract(epoch FROM minute) / %(step)s) DESC, minute DESC) h
 ORDER BY minute DESC LIMIT %(n)s;

-- name: recent_ends
-- The jobs that completed last, as far as ids tell: when, and after how many seconds.
SELECT job, extract(epoch FROM completed_at)::double precision, duration::double precision FROM {outcome}
 WHERE status = 'completed' ORDER BY job DESC LIMIT %(n)s;

-- name: texts
-- What the executions of a job have printed, as far as it is kept, the last one first.
SELECT run, claim::text, bee::text, extract(epoch FROM at)::double precision, head, stdout, stderr, stdout_size,
       stderr_size
  FROM {text} WHERE job = %(job)s ORDER BY at DESC LIMIT %(n)s;

-- name: tail
-- What a running job has printed until now, or of a negative number where it is, as its bee has shown it last.
SELECT run, NULL, bee::text, extract(epoch FROM pushed_at)::double precision, %(head)s::integer, stdout, stderr,
       stdout_size, stderr_size
  FROM workerbee."tail$" WHERE jobset = {number} AND job = %(job)s AND pushed_at IS NOT NULL;

-- name: same_jobs
-- Jobs that are these calls, or whose input has one of these ids.
SELECT id FROM {job} WHERE digest = ANY (%(digests)s::bytea[])
 UNION
SELECT id FROM {job} WHERE key = ANY (%(keys)s::bytea[])
 ORDER BY id DESC LIMIT %(n)s;

-- name: inputs_before
-- The inputs in JSON of so many jobs, the newest first; of those that are large, none.
SELECT id, CASE WHEN pg_column_size(input) <= %(most)s THEN input::text END
  FROM {job} WHERE id < %(before)s ORDER BY id DESC LIMIT %(n)s;

-- name: size
-- Bytes of the jobset's tables with their indexes, and of what jobs have printed.
SELECT sum(pg_total_relation_size(c.oid)), pg_total_relation_size(to_regclass('workerbee."text$' || {number} || '"'))
  FROM unnest(ARRAY['job$', 'function$', 'run$', 'outcome$', 'attempt$', 'part$', 'text$']) AS t (kind)
  JOIN pg_class c ON c.oid = to_regclass('workerbee."' || t.kind || {number} || '"');
