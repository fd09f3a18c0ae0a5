-- What readers ask of all jobsets and of the bees. Nothing here writes, and SELECT is all the right that it takes.

-- name: jobsets
-- Durable jobsets, newest first, or the one of this id; each with its counters and the bees that serve it.
SELECT j.number, j.id, j.uuid, j.key, j.speculate, j.client, extract(epoch FROM j.created_at)::double precision,
       c.added, c.reopened, c.completed, c.failed, c.cancelled, c.retried, c.lost, c.speculative, c.late,
       b.n_bees, b.n_runners
  FROM workerbee."jobset$" j
 CROSS JOIN LATERAL (
       SELECT COALESCE(sum(added), 0)::bigint AS added, COALESCE(sum(reopened), 0)::bigint AS reopened,
              COALESCE(sum(completed), 0)::bigint AS completed, COALESCE(sum(failed), 0)::bigint AS failed,
              COALESCE(sum(cancelled), 0)::bigint AS cancelled, COALESCE(sum(retried), 0)::bigint AS retried,
              COALESCE(sum(lost), 0)::bigint AS lost, COALESCE(sum(speculative), 0)::bigint AS speculative,
              COALESCE(sum(late), 0)::bigint AS late
         FROM workerbee."counter$" WHERE jobset = j.number) c
 CROSS JOIN LATERAL (
       SELECT count(*) AS n_bees, COALESCE(sum(runners), 0) AS n_runners FROM workerbee."bee$"
        WHERE lease_until > now() AND (jobset = j.number OR jobset IS NULL)) b
 WHERE j.dropped_at IS NULL AND j.id IS NOT NULL AND (%(id)s::text IS NULL OR j.id = %(id)s) AND j.number < %(before)s
 ORDER BY j.number DESC LIMIT %(n)s;

-- name: bees
-- The bees that serve a jobset (NULL: any), those heard of last first; a bee that left in order has no row, and
-- what has no runners has only made the jobset.
SELECT b.incarnation::text, j.id, b.jobset IS NULL, b.host, b.pid, b.python, b.runners,
       extract(epoch FROM b.started_at)::double precision,
       extract(epoch FROM now() - b.seen_at)::double precision, b.lease_until > now(), b.resting,
       COALESCE((SELECT sum(LEAST(h.started, cardinality(h.jobs))) FROM workerbee."batch$" h
                  WHERE h.bee = b.incarnation AND h.claim IS NOT NULL
                    AND (%(number)s::integer IS NULL OR h.jobset = %(number)s)), 0)::bigint
  FROM workerbee."bee$" b LEFT JOIN workerbee."jobset$" j ON j.number = b.jobset
 WHERE (%(number)s::integer IS NULL OR b.jobset IS NULL OR b.jobset = %(number)s) AND b.runners > 0
 ORDER BY b.seen_at DESC, b.incarnation LIMIT %(n)s;
