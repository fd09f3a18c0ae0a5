-- Jobsets as such, and the bees; nothing here names a jobset's own tables.

-- name: server_facts
-- What must fit before anything else is tried.
SELECT current_setting('server_version_num')::integer AS version,
       EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                WHERE s.nspname = 'workerbee' AND c.relname = 'version$') AS installed,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       (SELECT string_agg(privilege, ', ' ORDER BY privilege) FROM (
            SELECT 'USAGE on the schema workerbee' AS privilege FROM pg_namespace
             WHERE nspname = 'workerbee' AND NOT has_schema_privilege(oid, 'USAGE')
             UNION ALL
            SELECT p.privilege || ' on workerbee."' || c.relname || '"'
              FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
             CROSS JOIN unnest(%(needed)s::text[]) AS p (privilege)
             WHERE s.nspname = 'workerbee' AND NOT has_table_privilege(c.oid, p.privilege)
               AND (c.relname IN ('batch$', 'bee$') OR c.relname = 'counter$' AND p.privilege <> 'DELETE'
                    OR c.relname = 'jobset$' AND p.privilege IN ('SELECT', 'UPDATE')
                    OR c.relname = 'version$' AND p.privilege = 'SELECT')
             UNION ALL
            SELECT 'USAGE on workerbee."place$"' FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
             WHERE s.nspname = 'workerbee' AND c.relname = 'place$' AND 'INSERT' = ANY (%(needed)s::text[])
               AND NOT has_sequence_privilege(c.oid, 'USAGE')
       ) m) AS missing;

-- name: schema_version
SELECT COALESCE(max(number), 0) AS version FROM workerbee."version$";

-- name: create_jobset
-- ON CONFLICT makes exactly one of many racing processes the creator; the others get no row.
INSERT INTO workerbee."jobset$" (id, uuid, key, speculate, client, seen_at)
VALUES (%(id)s, %(uuid)s, %(key)s, %(speculate)s, %(client)s,
        CASE WHEN %(client)s::uuid IS NOT NULL THEN now() END)
ON CONFLICT (id) WHERE dropped_at IS NULL AND id IS NOT NULL DO NOTHING
RETURNING number;

-- name: find_jobset
SELECT number, id, uuid, key, speculate, client
  FROM workerbee."jobset$"
 WHERE dropped_at IS NULL AND id = %(id)s;

-- name: find_jobset_by_number
SELECT number, id, uuid, key, speculate, client
  FROM workerbee."jobset$"
 WHERE dropped_at IS NULL AND number = %(number)s;

-- name: jobset_ids
SELECT id FROM workerbee."jobset$" WHERE id IS NOT NULL AND dropped_at IS NULL ORDER BY number DESC LIMIT 100;

-- name: adopt_key
-- A jobset made by a process without a key (the origin's path) takes the first key that signs in it.
UPDATE workerbee."jobset$" SET key = COALESCE(key, %(key)s) WHERE number = %(number)s AND uuid = %(uuid)s RETURNING key;

-- name: rename_jobset
UPDATE workerbee."jobset$" SET id = %(id)s WHERE number = %(number)s;

-- name: touch_client
-- A temporary jobset lives as long as its client says so.
UPDATE workerbee."jobset$" SET seen_at = now()
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING set_config('synchronous_commit', 'off', true) IS NOT NULL;

-- name: mark_dropped
UPDATE workerbee."jobset$" SET dropped_at = COALESCE(dropped_at, now())
 WHERE number = %(number)s AND uuid = %(uuid)s;

-- name: hold_jobset
-- The first step of a drop: from here on the number means this jobset.
SELECT number FROM workerbee."jobset$" WHERE number = %(number)s AND uuid = %(uuid)s FOR UPDATE;

-- name: forget_jobset
-- The last step of a drop, in the same transaction as the DROP of its tables.
WITH batches AS (DELETE FROM workerbee."batch$" WHERE jobset = %(number)s),
     counters AS (DELETE FROM workerbee."counter$" WHERE jobset = %(number)s)
DELETE FROM workerbee."jobset$" WHERE number = %(number)s;

-- name: dropped_jobsets
-- What is left to sweep: drops that were refused, and temporary jobsets whose client fell silent an
-- hour ago; not what another user's are.
SELECT number, id, uuid, key, speculate, client FROM workerbee."jobset$"
 WHERE (dropped_at IS NOT NULL OR seen_at < now() - interval '1 hour')
   AND COALESCE(pg_has_role((SELECT relowner FROM pg_class
                              WHERE oid = to_regclass(format('workerbee.%%I', 'job$' || number))), 'USAGE'), true)
 LIMIT 20;

-- name: reserve_jobs
-- Ids are the client's: it takes a block, and says which job gets which. This commit is synchronous,
-- else a crash could give the same block to two clients.
UPDATE workerbee."jobset$" SET next_job = next_job + %(n)s
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING next_job - %(n)s, {durably};

-- name: beat
-- A heartbeat. served_since starts anew after a gap, another connection or a step of the clock, because a bee that was
-- cut off itself can't tell who else is dead (a third of the lease is the longest that it is silent by itself). It
-- hears whether it was given up meanwhile: others may have taken its work. Bees are counted as far as a
-- hundred, and estimated beyond: if each counted all at every heartbeat, many would do little else.
WITH counted AS (
    SELECT count(*) AS n FROM (SELECT FROM workerbee."bee$" WHERE lease_until > now() LIMIT 100) b
), beat AS (
    INSERT INTO workerbee."bee$" AS b (incarnation, jobset, host, pid, python, runners, lease_until,
                                       backend, backend_start, resting)
    SELECT %(bee)s, %(jobset)s, %(host)s, %(pid)s, %(python)s, %(runners)s,
           now() + make_interval(secs => %(lease)s), %(backend)s,
           -- The view would look at every session.
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

-- name: set_back
-- The server's clock was set back by so many seconds. What lies further ahead than anything is written was written
-- before, and becomes as old as it is; done twice, it changes nothing. What somebody has locked speaks for itself soon.
WITH bees AS (
    UPDATE workerbee."bee$" b
       SET seen_at = seen_at - make_interval(secs => %(step)s), served_since = now(),
           lease_until = lease_until - make_interval(secs => %(step)s)
     WHERE incarnation IN (SELECT incarnation FROM workerbee."bee$" WHERE seen_at > now() + interval '2 seconds'
                              FOR UPDATE SKIP LOCKED)
), clients AS (
    UPDATE workerbee."jobset$" j SET seen_at = seen_at - make_interval(secs => %(step)s)
     WHERE number IN (SELECT number FROM workerbee."jobset$" WHERE seen_at > now() + interval '10 seconds'
                         FOR UPDATE SKIP LOCKED)
), pauses AS (
    UPDATE workerbee."batch$" b SET due_at = due_at - make_interval(secs => %(step)s)
     WHERE id IN (SELECT id FROM workerbee."batch$"
                   WHERE claim IS NULL AND due_at > now() + make_interval(secs => %(longest)s) FOR UPDATE SKIP LOCKED)
)
UPDATE workerbee."batch$" b
   SET claimed_at = CASE WHEN claimed_at > now() THEN claimed_at - make_interval(secs => %(step)s) ELSE claimed_at END,
       marked_at = CASE WHEN marked_at > now() THEN marked_at - make_interval(secs => %(step)s) ELSE marked_at END
 WHERE id IN (SELECT id FROM workerbee."batch$"
               WHERE claim IS NOT NULL AND GREATEST(claimed_at, marked_at) > now() + interval '2 seconds'
                 FOR UPDATE SKIP LOCKED);

-- name: leave
-- A bee that ends in order; whatever it still holds is claimable at once.
DELETE FROM workerbee."bee$" WHERE incarnation = %(bee)s;

-- name: vacancy
-- Whether nothing was ever added to a jobset and who made it is gone: its connection has ended, or behind a pooler it
-- was made a minute ago. Without a row of its maker (see note_maker) it is an hour. Of processes that were started
-- together one is the maker, however soon it ends: the others wait ten seconds before they would take its place.
SELECT j.number, j.uuid, b.xmin::text
  FROM workerbee."jobset$" j LEFT JOIN workerbee."bee$" b ON b.incarnation = j.uuid
 WHERE j.dropped_at IS NULL AND j.id = %(id)s
   AND NOT EXISTS (SELECT FROM workerbee."counter$" c WHERE c.jobset = j.number AND c.added > 0)
   AND (b.incarnation IS NULL OR (b.host, b.pid) = (%(host)s, %(pid)s)
        OR b.seen_at < now() - make_interval(secs => LEAST(%(age)s, 10)))
   AND CASE WHEN b.incarnation IS NULL THEN j.created_at < now() - interval '1 hour'
            WHEN b.backend IS NULL THEN b.seen_at < now() - interval '1 minute'
            ELSE NOT EXISTS (SELECT FROM pg_stat_activity a
                              WHERE a.pid = b.backend
                                -- Of other users' sessions only the superuser sees more than the pid.
                                AND COALESCE(a.backend_start, b.backend_start) = b.backend_start) END;

-- name: note_maker
-- Who is to bring a jobset's first jobs, as a bee that never lives and has no runners, named by the jobset. Of several
-- who find the one before gone, one takes its place.
INSERT INTO workerbee."bee$" AS b (incarnation, jobset, host, pid, python, runners, lease_until, backend, backend_start)
VALUES (%(uuid)s, %(number)s, %(host)s, %(pid)s, %(python)s, 0, now() - interval '1 minute', %(backend)s,
        (SELECT backend_start FROM pg_stat_get_activity(%(backend)s::integer) WHERE %(backend)s::integer IS NOT NULL))
ON CONFLICT (incarnation) DO UPDATE
   SET host = excluded.host, pid = excluded.pid, python = excluded.python, seen_at = now(),
       lease_until = excluded.lease_until, backend = excluded.backend, backend_start = excluded.backend_start
 WHERE b.xmin::text = %(before)s
RETURNING incarnation;

-- name: forget_bees
-- Rows of bees that vanished long ago and hold nothing.
DELETE FROM workerbee."bee$" b
 WHERE lease_until < now() - interval '1 hour'
   AND NOT EXISTS (SELECT FROM workerbee."batch$" h WHERE h.bee = b.incarnation AND h.claim IS NOT NULL);

-- name: live_bees
-- Could anybody do this jobset's work?
SELECT count(*) FROM workerbee."bee$"
 WHERE (jobset = %(number)s OR jobset IS NULL) AND lease_until > now() - interval '30 seconds';

-- name: live_runners
-- How much of this jobset's work can be done at a time.
SELECT COALESCE(sum(runners), 0) FROM workerbee."bee$"
 WHERE (jobset = %(number)s OR jobset IS NULL) AND lease_until > now() AND NOT resting;

-- name: offers
-- The next jobsets with work to claim, for a bee that serves them all: one probe of the index a jobset. Those that
-- nobody may serve now come without their facts, for they count as well.
WITH RECURSIVE ready AS (
    (SELECT jobset, 1 AS n FROM workerbee."batch$"
      WHERE claim IS NULL AND due_at IS NULL AND jobset > %(after)s AND jobset <= %(until)s
      ORDER BY jobset LIMIT 1)
    UNION ALL
    SELECT (SELECT jobset FROM workerbee."batch$"
             WHERE claim IS NULL AND due_at IS NULL AND jobset > r.jobset AND jobset <= %(until)s
             ORDER BY jobset LIMIT 1), n + 1
      FROM ready r WHERE r.jobset IS NOT NULL AND n < %(n)s
), due AS (
    (SELECT jobset, 1 AS n FROM workerbee."batch$"
      WHERE claim IS NULL AND due_at <= now() AND jobset > %(after)s AND jobset <= %(until)s
      ORDER BY jobset LIMIT 1)
    UNION ALL
    SELECT (SELECT jobset FROM workerbee."batch$"
             WHERE claim IS NULL AND due_at <= now() AND jobset > d.jobset AND jobset <= %(until)s
             ORDER BY jobset LIMIT 1), n + 1
      FROM due d WHERE d.jobset IS NOT NULL AND n < %(n)s
)
SELECT o.jobset, j.*
  FROM (SELECT jobset FROM (SELECT jobset FROM ready UNION SELECT jobset FROM due) u
         WHERE jobset IS NOT NULL ORDER BY jobset LIMIT %(n)s) o
  LEFT JOIN LATERAL (
       SELECT number, id, uuid, key, speculate, client FROM workerbee."jobset$"
        WHERE number = o.jobset AND dropped_at IS NULL
          AND (seen_at IS NULL OR seen_at BETWEEN now() - interval '10 seconds' AND now() + interval '10 seconds')
        LIMIT 1) j ON true
 ORDER BY o.jobset;

-- name: held_elsewhere
-- Jobsets in which other bees hold work: where something may lapse, or lag. Every bee asks with each
-- heartbeat, so it is one probe of the index a jobset, however many hold something there.
WITH RECURSIVE held AS (
    (SELECT jobset FROM workerbee."batch$"
      WHERE claim IS NOT NULL AND bee <> %(bee)s
        AND jobset BETWEEN COALESCE(%(jobset)s::integer, 0) AND COALESCE(%(jobset)s::integer, 2147483647)
      ORDER BY jobset LIMIT 1)
    UNION ALL
    SELECT (SELECT jobset FROM workerbee."batch$"
             WHERE claim IS NOT NULL AND bee <> %(bee)s
               AND jobset > h.jobset AND jobset <= COALESCE(%(jobset)s::integer, 2147483647)
             ORDER BY jobset LIMIT 1)
      FROM held h WHERE h.jobset IS NOT NULL
)
SELECT jobset FROM held WHERE jobset IS NOT NULL;

-- name: counts
SELECT COALESCE(sum(added), 0)::bigint AS added, COALESCE(sum(reopened), 0)::bigint AS reopened,
       COALESCE(sum(completed), 0)::bigint AS completed, COALESCE(sum(failed), 0)::bigint AS failed,
       COALESCE(sum(cancelled), 0)::bigint AS cancelled, COALESCE(sum(retried), 0)::bigint AS retried,
       COALESCE(sum(lost), 0)::bigint AS lost, COALESCE(sum(speculative), 0)::bigint AS speculative,
       COALESCE(sum(late), 0)::bigint AS late
  FROM workerbee."counter$" WHERE jobset = %(number)s;

-- name: remaining
-- A job without an outcome is in a batch, so that no batch means no work: nothing is counted. The
-- functions of what waits tell a bee whether any of it is for it.
SELECT EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = %(number)s) AS any_batch,
       EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = %(number)s AND claim IS NOT NULL) AS any_held,
       (SELECT array_agg(DISTINCT function) FROM workerbee."batch$"
         WHERE jobset = %(number)s AND claim IS NULL) AS functions,
       EXISTS (SELECT FROM workerbee."counter$" WHERE jobset = %(number)s AND added > 0) AS ever_added;

-- name: hint_work
-- A hint only: whoever misses it polls.
SELECT pg_notify('workerbee$work', %(number)s::text), set_config('synchronous_commit', 'off', true);

-- name: recall
-- Who holds jobs of this jobset that have not begun is asked to give them back, for somebody wants to cancel some.
SELECT pg_notify('workerbee$work', 'recall ' || %(number)s), set_config('synchronous_commit', 'off', true);

-- name: hint_done
SELECT pg_notify('workerbee$done$' || %(number)s, %(jobs)s), set_config('synchronous_commit', 'off', true);
