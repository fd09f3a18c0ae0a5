-- What readers ask of all jobsets and of the bees. Nothing here writes, and SELECT is all the right that it takes.

-- name: jobsets
-- Durable jobsets, newest first, or the one of this id, or those of these numbers; each with its counters and the bees
-- that serve it, when something last happened there as far as is known, and who has paused it.
SELECT j.number, j.id, j.uuid, j.key, j.speculate, j.client, extract(epoch FROM j.created_at)::double precision,
       c.added, c.reopened, c.completed, c.failed, c.cancelled, c.retried, c.lost, c.speculative, c.late, c.revived,
       b.n_bees, b.n_runners,
       extract(epoch FROM GREATEST(j.created_at, j.added_at, (
           SELECT h.minute FROM workerbee."history$" h WHERE h.jobset = j.number ORDER BY h.minute DESC LIMIT 1
       )))::double precision,
       extract(epoch FROM j.paused_at)::double precision, j.paused_by, j.paused_why
  FROM (SELECT * FROM workerbee."jobset$" WHERE dropped_at IS NULL AND id = %(id)s::text
         UNION ALL
        SELECT * FROM workerbee."jobset$" WHERE dropped_at IS NULL AND number = ANY (%(numbers)s::integer[])
         UNION ALL
        -- By number: the index of ids would be read as a whole, and COALESCE keeps it out.
        (SELECT * FROM workerbee."jobset$"
          WHERE dropped_at IS NULL AND COALESCE(id, '') <> '' AND %(id)s::text IS NULL AND number < %(before)s
          ORDER BY number DESC LIMIT %(n)s)) j
 CROSS JOIN LATERAL (
       SELECT COALESCE(sum(added), 0)::bigint AS added, COALESCE(sum(reopened), 0)::bigint AS reopened,
              COALESCE(sum(completed), 0)::bigint AS completed, COALESCE(sum(failed), 0)::bigint AS failed,
              COALESCE(sum(cancelled), 0)::bigint AS cancelled, COALESCE(sum(retried), 0)::bigint AS retried,
              COALESCE(sum(lost), 0)::bigint AS lost, COALESCE(sum(speculative), 0)::bigint AS speculative,
              COALESCE(sum(late), 0)::bigint AS late, COALESCE(sum(revived), 0)::bigint AS revived
         FROM workerbee."counter$" WHERE jobset = j.number) c
 CROSS JOIN LATERAL (
       SELECT count(*) AS n_bees, COALESCE(sum(runners), 0) AS n_runners FROM workerbee."bee$"
        WHERE lease_until > now() AND (jobset = j.number OR jobset IS NULL)) b
 ORDER BY j.number DESC;

-- name: lately
-- The durable jobsets in which something happened last, among the newest ones.
SELECT j.number
  FROM (SELECT number, created_at, added_at FROM workerbee."jobset$"
         WHERE dropped_at IS NULL AND COALESCE(id, '') <> '' ORDER BY number DESC LIMIT %(among)s) j
 ORDER BY GREATEST(j.created_at, j.added_at, (
           SELECT h.minute FROM workerbee."history$" h WHERE h.jobset = j.number ORDER BY h.minute DESC LIMIT 1)) DESC,
       j.number DESC LIMIT %(n)s;

-- name: histories
-- How each of these jobsets went since then, newest first, in at most so many minutes.
SELECT h.jobset, extract(epoch FROM h.minute)::double precision, h.completed, h.failed, h.lost
  FROM unnest(%(numbers)s::integer[]) AS n (number)
 CROSS JOIN LATERAL (SELECT * FROM workerbee."history$" WHERE jobset = n.number AND minute >= to_timestamp(%(since)s)
                      ORDER BY minute DESC LIMIT %(n)s) h;

-- name: server_line
-- The server, for a line on it: its version, connections, how old its oldest transaction is as far as we may see, and
-- its clock.
SELECT current_setting('server_version'), current_database()::text, a.n, current_setting('max_connections')::integer,
       a.oldest, extract(epoch FROM now())::double precision
  FROM (SELECT count(*) AS n,
               max(extract(epoch FROM now() - xact_start)) FILTER (WHERE pid <> pg_backend_pid())::double precision
                   AS oldest
          FROM (SELECT pid, xact_start FROM pg_stat_activity WHERE backend_type = 'client backend' LIMIT %(n)s) s) a;

-- name: clock
-- The server's time, at once: to compare clocks, and to see how long an answer takes.
SELECT extract(epoch FROM clock_timestamp())::double precision;

-- name: database_size
-- Bytes of the whole database; files are looked at one by one, so it may take its time.
SELECT pg_database_size(current_database());

-- name: doing
-- What bees have begun, in one jobset or any, the longest first; of a batch the job that was begun last.
SELECT h.bee::text, j.id, h.jobs[h.started], h.run,
       extract(epoch FROM now() - COALESCE(h.marked_at, h.claimed_at))::double precision, h.copy_of IS NOT NULL
  FROM (SELECT * FROM workerbee."batch$"
         WHERE claim IS NOT NULL AND started > 0 AND (%(number)s::integer IS NULL OR jobset = %(number)s)
         ORDER BY COALESCE(marked_at, claimed_at) LIMIT %(n)s) h
  LEFT JOIN workerbee."jobset$" j ON j.number = h.jobset
 ORDER BY 5 DESC;

-- name: bees
-- The bees that serve a jobset (NULL: any), those heard of last first; a bee that left in order has departed.
SELECT b.incarnation::text, j.id, b.jobset IS NULL, b.host, b.pid, b.python, b.runners,
       extract(epoch FROM b.started_at)::double precision,
       extract(epoch FROM now() - b.seen_at)::double precision, b.lease_until > now(), b.resting,
       COALESCE((SELECT sum(LEAST(h.started, cardinality(h.jobs))) FROM workerbee."batch$" h
                  WHERE h.bee = b.incarnation AND h.claim IS NOT NULL
                    AND (%(number)s::integer IS NULL OR h.jobset = %(number)s)), 0)::bigint,
       b.version, b.cpus, b.launch, b.place, extract(epoch FROM b.ends_at)::double precision,
       COALESCE((SELECT s.refuses::text FROM workerbee."service$" s
                  WHERE s.jobset = %(number)s::integer AND s.bee = b.incarnation), '{}')
  FROM workerbee."bee$" b LEFT JOIN workerbee."jobset$" j ON j.number = b.jobset
 WHERE %(number)s::integer IS NULL OR b.jobset IS NULL OR b.jobset = %(number)s
 ORDER BY b.seen_at DESC, b.incarnation LIMIT %(n)s;

-- name: departed
-- Bees that have left or vanished in the last days, the last first.
SELECT d.incarnation::text, j.id, d.jobset IS NULL, d.host, d.pid, d.python, d.version, d.runners,
       extract(epoch FROM d.started_at)::double precision, extract(epoch FROM d.left_at)::double precision,
       d.last_words
  FROM workerbee."departed$" d LEFT JOIN workerbee."jobset$" j ON j.number = d.jobset
 WHERE %(number)s::integer IS NULL OR d.jobset IS NULL OR d.jobset = %(number)s
 ORDER BY d.left_at DESC LIMIT %(n)s;
