-- What readers ask of one jobset. Nothing here writes, and SELECT is all the right that it takes. Long values are cut
-- by the server: a page shows their beginning.

-- name: jobs
-- A page of jobs by id, each with its latest run. Of headers only the held ones are looked at: what isn't in
-- one of them and hasn't ended waits.
SELECT * FROM (
    SELECT j.id, COALESCE(f.name, '') AS function, l.run,
           COALESCE(o.status::text,
                    CASE WHEN h.running THEN 'running'
                         WHEN (SELECT true FROM {attempt} a WHERE a.job = j.id AND a.run = l.run
                                  AND a.kind IN ('failed', 'died', 'lost') LIMIT 1) THEN 'retrying'
                         ELSE 'waiting' END) AS status,
           j.codec, left(j.input::text, %(width)s), o.codec,
           left(CASE WHEN o.codec = 'error' THEN concat_ws(': ', o.output ->> 'type', o.output ->> 'message')
                     ELSE o.output::text END, %(width)s),
           o.duration::double precision, extract(epoch FROM o.completed_at)::double precision
      FROM {job} j
      LEFT JOIN {function} f ON f.number = j.function
     CROSS JOIN LATERAL (SELECT COALESCE(max(run), 1) AS run FROM {run} WHERE job = j.id) l
      LEFT JOIN LATERAL (SELECT * FROM {outcome} WHERE job = j.id AND run = l.run LIMIT 1) o ON true
      LEFT JOIN LATERAL (
           SELECT true AS running FROM workerbee."batch$" h
            WHERE h.jobset = {number} AND h.claim IS NOT NULL AND o.status IS NULL
              AND h.jobs[1:h.started] @> ARRAY[j.id] AND h.run = l.run LIMIT 1) h ON true
     WHERE j.id > %(after)s AND (%(ids)s::bigint[] IS NULL OR j.id = ANY (%(ids)s))
     ORDER BY j.id) page
 WHERE (%(status)s::text IS NULL OR status = %(status)s) AND (%(function)s::text IS NULL OR function = %(function)s)
 ORDER BY id LIMIT %(n)s;

-- name: ended_badly_after
-- Jobs whose latest run failed or was cancelled, by id.
SELECT o.job FROM {outcome} o
 WHERE o.status::text = %(status)s AND o.job > %(after)s
   AND NOT EXISTS (SELECT FROM {run} r WHERE r.job = o.job AND r.run > o.run)
 ORDER BY o.job LIMIT %(n)s;

-- name: open_after
-- Jobs by id that bees have begun, or else those that wait: again, if they are to be tried once more.
SELECT DISTINCT u.job
  FROM workerbee."batch$" h
 CROSS JOIN LATERAL unnest(CASE WHEN %(status)s = 'running' THEN h.jobs[1:h.started]
                                ELSE h.jobs[h.started + 1:] END) AS u (job)
 WHERE h.jobset = {number} AND u.job > %(after)s AND (h.claim IS NOT NULL OR %(status)s <> 'running')
   AND (h.again OR %(status)s <> 'retrying')
 ORDER BY u.job LIMIT %(n)s;

-- name: begun_jobs
-- What bees have begun and not closed, longest first: the job, its run, who has it, and since when at the most.
SELECT u.job, h.run, h.bee::text, b.host, extract(epoch FROM now() - h.claimed_at)::double precision,
       h.copy_of IS NOT NULL
  FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
  LEFT JOIN workerbee."bee$" b ON b.incarnation = h.bee
 WHERE h.jobset = {number} AND h.claim IS NOT NULL
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

-- name: failures
-- The error records of failed runs that nobody has retried, newest jobs first, without their pickles.
SELECT o.job, COALESCE(f.name, ''), o.output ->> 'type', left(o.output ->> 'message', %(width)s),
       right(o.output ->> 'traceback', 2000), o.output ->> 'notes', extract(epoch FROM o.completed_at)::double precision
  FROM {outcome} o LEFT JOIN {job} j ON j.id = o.job LEFT JOIN {function} f ON f.number = j.function
 WHERE o.status = 'failed' AND o.job < %(before)s AND o.codec = 'error'
   AND NOT EXISTS (SELECT FROM {run} r WHERE r.job = o.job AND r.run > o.run)
 ORDER BY o.job DESC LIMIT %(n)s;

-- name: recent_durations
-- How long the jobs took that completed last, as far as ids tell.
SELECT percentile_cont(ARRAY[0.25, 0.5, 0.75, 0.95]) WITHIN GROUP (ORDER BY d.duration)
  FROM (SELECT duration::double precision FROM {outcome} WHERE status = 'completed' AND duration IS NOT NULL
         ORDER BY job DESC LIMIT 500) d;

-- name: progress
-- How many jobs are in which state, by each one's latest run. The counters say how many runs have ended and how;
-- what has been run anew since is looked up, and what runs is looked at, so that no job is counted that doesn't
-- have to be.
WITH counted AS (
    SELECT COALESCE(sum(added) + sum(reopened), 0)::bigint AS begun, COALESCE(sum(completed), 0)::bigint AS completed,
           COALESCE(sum(failed), 0)::bigint AS failed, COALESCE(sum(cancelled), 0)::bigint AS cancelled
      FROM workerbee."counter$" WHERE jobset = {number}
), again AS (
    SELECT count(*) FILTER (WHERE e.status = 'failed') AS failed,
           count(*) FILTER (WHERE e.status = 'cancelled') AS cancelled
      FROM (SELECT (SELECT o.status FROM {outcome} o WHERE o.job = r.job AND o.run = r.run - 1) AS status
              FROM {run} r) e
), running AS (
    SELECT count(DISTINCT u.job) AS n
      FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[:h.started]) AS u (job)
     WHERE h.jobset = {number} AND h.claim IS NOT NULL
       AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
)
SELECT GREATEST(0, c.begun - c.completed - c.failed - c.cancelled - r.n), r.n,
       c.completed, c.failed - a.failed, c.cancelled - a.cancelled
  FROM counted c, again a, running r;

-- name: functions
-- What was stored of the functions, without their code, oldest first.
SELECT number, digest, identity, name, codec, python FROM {function} ORDER BY number;

-- name: newest
-- The function of the job that was added last.
SELECT function FROM {job} ORDER BY id DESC LIMIT 1;

-- name: legible
-- How much of it a person can read: jobs, and those whose input is JSON; completed runs, and those whose result is.
SELECT (SELECT count(*) FROM {job}), (SELECT count(*) FROM {job} WHERE payload IS NULL),
       (SELECT count(*) FROM {outcome} WHERE status = 'completed'),
       (SELECT count(*) FROM {outcome} WHERE status = 'completed' AND payload IS NULL);

-- name: run_facts
-- Of the latest run of these jobs: at which attempt it ended, where, and when (seconds since the epoch). A bee's host
-- is kept as a part of job 0, which no job is.
SELECT o.job,
       1 + (SELECT count(*) FROM {attempt} a WHERE a.job = o.job AND a.run = o.run
               AND a.kind IN ('failed', 'error', 'died', 'lost')) - (o.status = 'failed')::integer,
       COALESCE((SELECT convert_from(p.data, 'UTF8') FROM {part} p
                  WHERE p.job = 0 AND p.run = 0 AND p.token = o.bee AND p.seq = 0),
                (SELECT a.host FROM {attempt} a WHERE a.job = o.job AND a.run = o.run AND a.bee = o.bee LIMIT 1)),
       extract(epoch FROM o.completed_at)::float8, o.duration::float8
  FROM {outcome} o
 WHERE o.job = ANY (%(jobs)s::bigint[])
   AND o.run = COALESCE((SELECT max(r.run) FROM {run} r WHERE r.job = o.job), 1);
