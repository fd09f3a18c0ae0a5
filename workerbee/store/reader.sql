-- What readers ask of one jobset. Nothing here writes, and SELECT is all the right that it takes. Long values are cut
-- by the server: a page shows their beginning.

-- name: jobs
-- Give these jobs by id, each with its latest run. Only headers that bees hold are looked at: a job that is in none of
-- them and hasn't ended waits.
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
   AND (%(function)s::text IS NULL OR %(function)s IN (function, split_part(function, ':', 2))) AND (%(host)s::text IS NULL OR host = %(host)s)
 ORDER BY id LIMIT %(n)s;

-- name: seek
-- Look at so many jobs by id, and give those of this function (NULL: of any), the last id and how many were looked at.
SELECT COALESCE(array_agg(id ORDER BY id) FILTER (WHERE fits), '{{}}'), max(id), count(*)
  FROM (SELECT id, %(function)s::text IS NULL
                   OR function = ANY (ARRAY(SELECT number FROM {function}
                                             WHERE %(function)s IN (name, split_part(name, ':', 2)))) AS fits
          FROM {job} WHERE id > %(after)s ORDER BY id LIMIT %(look)s) j;

-- name: ended_badly_after
-- List jobs by id whose latest run failed or was cancelled. The status is compared as a range: then only the index of
-- such runs offers this order. Otherwise a plan made while there were few outcomes would use the index of all of them.
SELECT o.job FROM {outcome} o
 WHERE o.status BETWEEN (%(status)s::text)::workerbee."status$" AND (%(status)s::text)::workerbee."status$"
   AND o.status <> 'completed' AND o.job > %(after)s
   AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
 ORDER BY o.status, o.job LIMIT %(n)s;

-- name: failed_of
-- List jobs by id whose latest run failed for this cause.
SELECT o.job FROM {outcome} o
 WHERE o.status = 'failed' AND o.cause BETWEEN %(cause)s::bytea AND %(cause)s::bytea AND o.job > %(after)s
   AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
 ORDER BY o.cause, o.job LIMIT %(n)s;

-- name: tried_of
-- List jobs by id of which an attempt failed for this cause, however they ended.
SELECT DISTINCT job FROM {attempt} WHERE cause = %(cause)s::bytea AND job > %(after)s ORDER BY job LIMIT %(n)s;

-- name: open_after
-- List jobs by id that run, that wait, or that wait to be tried once more ("retrying"). The jobs of a header are in the
-- order of their ids. So headers are taken in the order of their first jobs until they hold n jobs: the first n of all
-- jobs aren't greater than the greatest of these.
WITH fronts AS MATERIALIZED (
    -- Arrays are long: only the first job of each header is looked at, and the headers that come first are taken.
    SELECT h.jobs, h.started,
           CASE WHEN l.lead > %(after)s THEN l.lead
                ELSE (SELECT min(u.job) FROM unnest(CASE WHEN %(status)s = 'running' THEN h.jobs[1:h.started]
                                                         ELSE h.jobs[h.started + 1:] END) AS u (job)
                       WHERE u.job > %(after)s) END AS first
      FROM (SELECT jobs, started, again FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL AND %(status)s <> 'running'
             UNION ALL
            SELECT jobs, started, again FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NULL AND due_at IS NOT NULL AND %(status)s <> 'running'
             UNION ALL
            SELECT jobs, started, again FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL) h
     CROSS JOIN LATERAL (SELECT CASE WHEN %(status)s <> 'running' THEN h.jobs[h.started + 1]
                                     WHEN h.started > 0 THEN h.jobs[1] END AS lead OFFSET 0) l
     WHERE (l.lead > %(after)s
            OR (l.lead <= %(after)s AND %(after)s < h.jobs[CASE WHEN %(status)s = 'running'
                                                                THEN LEAST(h.started, cardinality(h.jobs))
                                                                ELSE cardinality(h.jobs) END]))
       AND (h.again OR %(status)s <> 'retrying')
     ORDER BY first LIMIT %(n)s
), headers AS MATERIALIZED (
    SELECT p.jobs, p.jobs[cardinality(p.jobs)] AS last, f.first,
           CASE WHEN p.jobs[1] = f.first THEN cardinality(p.jobs)
                ELSE (SELECT count(*) FROM unnest(p.jobs) AS u (job) WHERE u.job >= f.first) END AS size
      FROM fronts f
     CROSS JOIN LATERAL (SELECT CASE WHEN %(status)s = 'running' THEN f.jobs[1:f.started]
                                     ELSE f.jobs[f.started + 1:] END AS jobs OFFSET 0) p
), bound AS (
    SELECT max(last) AS last
      FROM (SELECT last, sum(size) OVER (ORDER BY first, last ROWS UNBOUNDED PRECEDING) - size AS before
              FROM headers) r WHERE before < %(n)s
)
SELECT DISTINCT u.job FROM headers h CROSS JOIN bound b CROSS JOIN LATERAL unnest(h.jobs) AS u (job)
 WHERE h.first <= b.last AND u.job > %(after)s AND u.job <= b.last
 ORDER BY u.job LIMIT %(n)s;

-- name: begun_jobs
-- List what bees have begun and not closed (NULL: any job), longest first: the job, its run, its bee, the bee's host,
-- the seconds since it was claimed, and whether it is a copy.
SELECT u.job, h.run, h.bee::text, b.host,
       COALESCE(extract(epoch FROM now()) - extract(epoch FROM h.claimed_at), 0)::double precision, h.copy_of IS NOT NULL
  FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
  LEFT JOIN workerbee."bee$" b ON b.incarnation = h.bee
 WHERE h.jobset = {number} AND h.claim IS NOT NULL
   AND (%(job)s::bigint IS NULL OR u.job = %(job)s)
   AND u.job IS NOT NULL AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
 ORDER BY h.claimed_at, u.job LIMIT %(n)s;

-- name: life
-- Give all that is known of one job's runs, in the order of time: when a run was opened, its attempts, its end.
SELECT kind, run, extract(epoch FROM at)::double precision, bee, host, duration, codec, record FROM (
    SELECT 'opened' AS kind, run, opened_at AS at, NULL AS bee, NULL AS host, NULL::double precision AS duration,
           NULL AS codec, NULL AS record
      FROM {run} WHERE job = %(job)s
     UNION ALL
    SELECT kind, run, at, bee::text, host, NULL, 'error', error::text FROM {attempt} WHERE job = %(job)s
     UNION ALL
    SELECT o.status::text, o.run, o.completed_at, o.bee::text,
           COALESCE((SELECT s.host FROM workerbee."service$" s WHERE s.jobset = {number} AND s.bee = o.bee),
                    (SELECT b.host FROM workerbee."bee$" b WHERE b.incarnation = o.bee)),
           o.duration, o.codec, o.output::text
      FROM {outcome} o WHERE o.job = %(job)s) life
 ORDER BY at, run LIMIT %(n)s;

-- name: causes
-- Count failed runs by their cause, the most frequent first, leaving out those that were retried. Of each cause: its
-- newest job as an example, the functions and hosts of its newest ones, and whether all failures were counted. Only the
-- newest `most` are counted; a fifth of that once jobs were retried, as each failure is then looked up.
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
-- Give quantiles of the durations of the jobs that completed last, as far as ids tell.
SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75, 0.95]) WITHIN GROUP (ORDER BY d.duration)
  FROM (SELECT duration::double precision FROM {outcome} WHERE status = 'completed' AND duration IS NOT NULL
         ORDER BY job DESC LIMIT 500) d;

-- name: progress
-- Count jobs by the state of their latest run. The counters tell how many runs have ended, how, and how many of those
-- were followed by another run; only what bees hold is looked at, for what runs.
WITH counted AS (
    SELECT COALESCE(sum(added) + sum(reopened), 0) AS begun, COALESCE(sum(completed), 0) AS completed,
           COALESCE(sum(failed), 0) AS failed, COALESCE(sum(cancelled), 0) AS cancelled,
           COALESCE(sum(reopened) - sum(revived), 0) AS failed_before, COALESCE(sum(revived), 0) AS revived
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
-- List the stored functions without their code, oldest first.
SELECT number, digest, identity, name, codec, python FROM {function} WHERE number > %(after)s AND codec <> 'place'
 ORDER BY number LIMIT %(n)s;

-- name: newest
-- Give the function of the job that was added last.
SELECT function FROM {job} ORDER BY id DESC LIMIT 1;

-- name: legible
-- Look at the next jobs by id. Give the last id, how many jobs there are and how many have JSON as input, and how many
-- of them have completed and with JSON as output.
WITH page AS MATERIALIZED (
    SELECT id, payload IS NULL AS is_json FROM {job} WHERE id > %(after)s ORDER BY id LIMIT %(n)s
)
SELECT max(id), count(*), count(*) FILTER (WHERE page.is_json),
       COALESCE(sum(o.completed), 0), COALESCE(sum(o.is_json), 0)
  FROM page CROSS JOIN LATERAL (
       SELECT count(*) AS completed, count(*) FILTER (WHERE payload IS NULL) AS is_json
         FROM {outcome} WHERE job = page.id AND status = 'completed') o;

-- name: run_facts
-- Tell of the latest run of these jobs at which attempt it ended, on which host, and when (seconds since the epoch).
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
-- Give the jobset's history: the counters' sums by the minute, newest first.
SELECT extract(epoch FROM minute)::double precision, {history}, bees, runners
  FROM workerbee."history$"
 WHERE jobset = {number} AND minute >= to_timestamp(%(since)s) ORDER BY minute DESC LIMIT %(n)s;

-- name: history_steps
-- Give the history's last minute of each step of so many seconds.
SELECT extract(epoch FROM minute)::double precision, {history}, bees, runners
  FROM (SELECT DISTINCT ON (floor(extract(epoch FROM minute) / %(step)s)) *
          FROM workerbee."history$" WHERE jobset = {number} AND minute >= to_timestamp(%(since)s)
         ORDER BY floor(extract(epoch FROM minute) / %(step)s) DESC, minute DESC) h
 ORDER BY minute DESC LIMIT %(n)s;

-- name: recent_ends
-- List the jobs that completed last, as far as ids tell: when, and after how many seconds.
SELECT job, extract(epoch FROM completed_at)::double precision, duration::double precision FROM {outcome}
 WHERE status = 'completed' ORDER BY job DESC LIMIT %(n)s;

-- name: texts
-- Give what the executions of a job have printed, as far as it is kept, the last execution first.
SELECT run, claim::text, bee::text, extract(epoch FROM at)::double precision, head, stdout, stderr, stdout_size,
       stderr_size
  FROM {text} WHERE job = %(job)s ORDER BY at DESC LIMIT %(n)s;

-- name: tail
-- Give what a running job has printed or, for its negative number, where it is, as its bee has shown it last.
SELECT COALESCE(run, 0), NULL, COALESCE(bee::text, ''), extract(epoch FROM pushed_at)::double precision,
       %(head)s::integer, COALESCE(stdout, ''), COALESCE(stderr, ''),
       GREATEST(stdout_size, octet_length(stdout), 0), GREATEST(stderr_size, octet_length(stderr), 0)
  FROM workerbee."tail$" WHERE jobset = {number} AND job = %(job)s AND pushed_at IS NOT NULL;

-- name: same_jobs
-- Find the jobs that are these calls, or whose input has one of these ids.
SELECT id FROM {job} WHERE digest = ANY (%(digests)s::bytea[])
 UNION
SELECT id FROM {job} WHERE key = ANY (%(keys)s::bytea[])
 ORDER BY id DESC LIMIT %(n)s;

-- name: inputs_before
-- Give the JSON inputs of so many jobs, the newest first; NULL for large ones.
SELECT id, CASE WHEN pg_column_size(input) <= %(most)s THEN input::text END
  FROM {job} WHERE id < %(before)s ORDER BY id DESC LIMIT %(n)s;

-- name: size
-- Give the bytes of the jobset's tables with their indexes, and the bytes of what jobs have printed.
SELECT sum(pg_total_relation_size(c.oid)), pg_total_relation_size(to_regclass('workerbee."text$' || {number} || '"'))
  FROM unnest(ARRAY['job$', 'function$', 'run$', 'outcome$', 'attempt$', 'part$', 'text$']) AS t (kind)
  JOIN pg_class c ON c.oid = to_regclass('workerbee."' || t.kind || {number} || '"');
