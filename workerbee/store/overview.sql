-- What readers ask of all jobsets and of the bees. Nothing here writes, and SELECT is all the right that it takes.

-- name: jobsets
-- List durable jobsets, newest first, or the one of this id, or those of these numbers: each with its counters, the
-- bees that serve it, when something last happened in it as far as is known, and who has paused it.
SELECT j.number, j.id, j.uuid, j.key, j.speculate, j.client, extract(epoch FROM j.created_at)::double precision,
       {c.counters},
       b.n_bees, b.n_runners,
       extract(epoch FROM GREATEST(j.created_at, j.added_at, (
           SELECT h.minute FROM workerbee."history$" h WHERE h.jobset = j.number ORDER BY h.minute DESC LIMIT 1
       )))::double precision,
       extract(epoch FROM j.paused_at)::double precision, left(j.paused_by, 100), left(j.paused_why, 500)
  FROM (SELECT * FROM workerbee."jobset$" WHERE dropped_at IS NULL AND id = %(id)s::text
         UNION ALL
        SELECT * FROM workerbee."jobset$" WHERE dropped_at IS NULL AND number = ANY (%(numbers)s::integer[])
         UNION ALL
        -- COALESCE keeps the planner from the index of ids, which it would read as a whole; that of numbers has the
        -- order.
        (SELECT * FROM workerbee."jobset$"
          WHERE dropped_at IS NULL AND COALESCE(id, '') <> '' AND %(id)s::text IS NULL AND number < %(before)s
          ORDER BY number DESC LIMIT %(n)s)) j
 CROSS JOIN LATERAL (
       SELECT {counters: total(#) AS #}
         FROM workerbee."counter$" WHERE jobset = j.number) c
 CROSS JOIN LATERAL (
       SELECT count(*) AS n_bees, COALESCE(sum(runners), 0) AS n_runners FROM workerbee."bee$"
        WHERE lease_until > now() AND (jobset = j.number OR jobset IS NULL)) b
 ORDER BY j.number DESC;

-- name: lately
-- List the newest durable jobsets, the one first in which something happened last.
SELECT j.number
  FROM (SELECT number, created_at, added_at FROM workerbee."jobset$"
         WHERE dropped_at IS NULL AND COALESCE(id, '') <> '' ORDER BY number DESC LIMIT %(among)s) j
 ORDER BY GREATEST(j.created_at, j.added_at, (
           SELECT h.minute FROM workerbee."history$" h WHERE h.jobset = j.number ORDER BY h.minute DESC LIMIT 1)) DESC,
       j.number DESC LIMIT %(n)s;

-- name: histories
-- Give the history of each of these jobsets since a time, newest first, at most so many minutes of each.
SELECT h.jobset, extract(epoch FROM h.minute)::double precision, h.completed, h.failed, h.lost
  FROM unnest(%(numbers)s::integer[]) AS n (number)
 CROSS JOIN LATERAL (SELECT * FROM workerbee."history$" WHERE jobset = n.number AND minute >= to_timestamp(%(since)s)
                      ORDER BY minute DESC LIMIT %(n)s) h;

-- name: server_line
-- Describe the server: its version, connections, the age of its oldest transaction as far as this user may see it, and
-- its clock.
SELECT current_setting('server_version'), current_database()::text, a.n, current_setting('max_connections')::integer,
       a.oldest, extract(epoch FROM now())::double precision
  FROM (SELECT count(*) AS n,
               max(extract(epoch FROM now() - xact_start)) FILTER (WHERE pid <> pg_backend_pid())::double precision
                   AS oldest
          FROM (SELECT pid, xact_start FROM pg_stat_activity WHERE backend_type = 'client backend' LIMIT %(n)s) s) a;

-- name: clock
-- Give the server's time, to compare clocks and to see how long an answer takes.
SELECT extract(epoch FROM clock_timestamp())::double precision;

-- name: database_size
-- Give the bytes of the whole database. PostgreSQL looks at each file, which may take a while.
SELECT pg_database_size(current_database());

-- name: doing
-- List what bees have begun, in one jobset or in any, the longest first: of each batch the job that was begun last.
SELECT h.bee::text, j.id, h.jobs[h.started], h.run,
       extract(epoch FROM now() - COALESCE(h.marked_at, h.claimed_at))::double precision, h.copy_of IS NOT NULL
  FROM (SELECT * FROM workerbee."batch$"
         WHERE claim IS NOT NULL AND started > 0 AND (%(number)s::integer IS NULL OR jobset = %(number)s)
         ORDER BY COALESCE(marked_at, claimed_at) LIMIT %(n)s) h
  LEFT JOIN workerbee."jobset$" j ON j.number = h.jobset
 ORDER BY 5 DESC;

-- name: bees
-- List the bees that serve a jobset (NULL: any) and were started by a launch (NULL: by any), those heard of last first.
-- Bees that have left in order aren't among them: they have departed.
SELECT b.incarnation::text, j.id, b.jobset IS NULL, b.host, b.pid, b.python, b.runners,
       extract(epoch FROM b.started_at)::double precision,
       (extract(epoch FROM now()) - extract(epoch FROM b.seen_at))::double precision, b.lease_until > now(), b.resting,
       COALESCE((SELECT sum(LEAST(h.started, cardinality(h.jobs))) FROM workerbee."batch$" h
                  WHERE h.bee = b.incarnation AND h.claim IS NOT NULL
                    AND (%(number)s::integer IS NULL OR h.jobset = %(number)s)), 0)::bigint,
       b.version, b.cpus, b.launch, b.place, extract(epoch FROM b.ends_at)::double precision,
       COALESCE((SELECT s.refuses::text FROM workerbee."service$" s
                  WHERE s.jobset = %(number)s::integer AND s.bee = b.incarnation), '{}')
  FROM workerbee."bee$" b LEFT JOIN workerbee."jobset$" j ON j.number = b.jobset
 WHERE (%(number)s::integer IS NULL OR b.jobset IS NULL OR b.jobset = %(number)s)
   AND (%(launch)s::text IS NULL OR b.launch = %(launch)s)
 ORDER BY b.seen_at DESC, b.incarnation LIMIT %(n)s;

-- name: departed
-- List the bees that have left or vanished in the last days, the last one first.
SELECT d.incarnation::text, j.id, d.jobset IS NULL, d.host, d.pid, d.python, d.version, d.runners,
       extract(epoch FROM d.started_at)::double precision, extract(epoch FROM d.left_at)::double precision,
       d.last_words, d.launch, d.place
  FROM workerbee."departed$" d LEFT JOIN workerbee."jobset$" j ON j.number = d.jobset
 WHERE (%(number)s::integer IS NULL OR d.jobset IS NULL OR d.jobset = %(number)s)
   AND (%(launch)s::text IS NULL OR d.launch = %(launch)s)
 ORDER BY d.left_at DESC LIMIT %(n)s;

-- name: launches
-- List launches (NULL: of any name), as far as the bees heard of last tell, the last one first. Of each: how many bees
-- were seen, live, and have left or vanished; runners, and runs that have ended, of the bees that have not left; when
-- the first bee came, when the last one was heard of, and when the time of the living ones ends; its hosts; and whether
-- more bees are known than were looked at.
WITH known AS MATERIALIZED (
    (SELECT launch, incarnation, host, runners, started_at, seen_at, lease_until > now() AS lives, ends_at
       FROM workerbee."bee$" WHERE launch IS NOT NULL AND (%(launch)s::text IS NULL OR launch = %(launch)s)
      ORDER BY seen_at DESC LIMIT %(among)s)
     UNION ALL
    (SELECT launch, incarnation, host, 0, started_at, left_at, false, NULL
       FROM workerbee."departed$" WHERE launch IS NOT NULL AND (%(launch)s::text IS NULL OR launch = %(launch)s)
      ORDER BY left_at DESC LIMIT %(among)s)
), ended AS (
    SELECT writer, sum(completed) + sum(failed) AS n FROM workerbee."counter$"
     WHERE writer = ANY (ARRAY(SELECT incarnation FROM known WHERE runners > 0)) GROUP BY writer
)
SELECT k.launch, count(*), count(*) FILTER (WHERE k.lives), count(*) FILTER (WHERE NOT k.lives),
       COALESCE(sum(k.runners) FILTER (WHERE k.lives), 0), total(n),
       extract(epoch FROM min(k.started_at))::double precision, extract(epoch FROM max(k.seen_at))::double precision,
       extract(epoch FROM min(k.ends_at) FILTER (WHERE k.lives))::double precision,
       extract(epoch FROM max(k.ends_at) FILTER (WHERE k.lives))::double precision,
       count(DISTINCT k.host), (SELECT count(*) FROM known) >= %(among)s
  FROM known k LEFT JOIN ended e ON e.writer = k.incarnation
 GROUP BY k.launch ORDER BY max(k.seen_at) DESC, k.launch LIMIT %(n)s;
