-- Jobsets as such, and the bees; nothing here names a jobset's own tables.

-- name: server_facts
-- Give the server's version, whether our tables are there, and the rights that this user lacks.
SELECT current_setting('server_version_num')::integer AS version,
       EXISTS (SELECT FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
                WHERE s.nspname = 'workerbee' AND c.relname = 'version$') AS installed,
       has_database_privilege(current_database(), 'CREATE') AS may_create,
       (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only'
           AND current_setting('transaction_read_only') = 'on' AND NOT pg_is_in_recovery()) AS read_only,
       (SELECT string_agg(privilege, ', ' ORDER BY privilege) FROM (
            SELECT 'USAGE on the schema workerbee' AS privilege FROM pg_namespace
             WHERE nspname = 'workerbee' AND NOT has_schema_privilege(oid, 'USAGE')
             UNION ALL
            SELECT p.privilege || ' on workerbee."' || c.relname || '"'
              FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
             CROSS JOIN unnest(%(needed)s::text[]) AS p (privilege)
             WHERE s.nspname = 'workerbee' AND NOT has_table_privilege(c.oid, p.privilege)
               -- All by their names: there may be thousands of others, the jobsets' own.
               AND c.relname IN ('batch$', 'bee$', 'counter$', 'departed$', 'history$', 'jobset$', 'service$', 'tail$',
                                 'version$')
               AND (c.relname IN ('batch$', 'bee$', 'departed$', 'service$', 'history$', 'tail$')
                    OR c.relname = 'counter$' AND p.privilege <> 'DELETE'
                    OR c.relname = 'jobset$' AND p.privilege IN ('SELECT', 'UPDATE')
                    OR c.relname = 'version$' AND p.privilege = 'SELECT')
             UNION ALL
            SELECT 'USAGE on workerbee."place$"' FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
             WHERE s.nspname = 'workerbee' AND c.relname = 'place$' AND 'INSERT' = ANY (%(needed)s::text[])
               AND NOT has_sequence_privilege(c.oid, 'USAGE')
             UNION ALL
            -- Where no policy lets anything through, nothing is seen and nothing can be stored.
            SELECT 'a policy of row-level security on workerbee."' || c.relname || '"'
              FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
             WHERE s.nspname = 'workerbee' AND c.relname IN ('batch$', 'bee$', 'counter$', 'departed$', 'history$',
                                                             'jobset$', 'service$', 'tail$', 'version$')
               AND row_security_active(c.oid) AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
       ) m) AS missing;

-- name: lacking
-- List the rights that this user lacks on relations of these names.
SELECT string_agg(p.privilege || ' on workerbee."' || c.relname || '"', ', ' ORDER BY c.relname, p.n)
  FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
 CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS p (privilege, n)
 WHERE s.nspname = 'workerbee' AND c.relkind IN ('r', 'v') AND c.relname = ANY (%(names)s::text[])
   AND NOT has_table_privilege(c.oid, p.privilege);

-- name: schema_version
SELECT COALESCE(max(number), 0) AS version FROM workerbee."version$";

-- name: outdated_jobsets
-- List jobsets whose tables a former version has made. Those of other users are left out: only the owner may change
-- them.
SELECT j.number, j.id, j.uuid FROM workerbee."jobset$" j
 WHERE j.layout < %(layout)s AND j.dropped_at IS NULL
   AND pg_has_role((SELECT relowner FROM pg_class
                     WHERE oid = to_regclass(format('workerbee.%%I', 'job$' || j.number))), 'USAGE')
 LIMIT 1000;

-- name: hold_outdated
SELECT number FROM workerbee."jobset$"
 WHERE number = %(number)s AND uuid = %(uuid)s AND layout < %(layout)s AND dropped_at IS NULL FOR UPDATE;

-- name: is_upgraded
UPDATE workerbee."jobset$" SET layout = %(layout)s WHERE number = %(number)s;

-- name: create_jobset
-- ON CONFLICT makes exactly one of many racing processes the creator; the others get no row.
INSERT INTO workerbee."jobset$" (id, uuid, key, speculate, client, layout, seen_at)
VALUES (%(id)s, %(uuid)s, %(key)s, %(speculate)s, %(client)s, %(layout)s,
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

-- name: damage
-- Say what was changed by hand of a jobset's tables, so that they can't keep what is promised.
SELECT string_agg('workerbee."' || c.relname || '" has ' || wrong, ', ' ORDER BY c.relname)
  FROM pg_namespace s JOIN pg_class c ON c.relnamespace = s.oid
 CROSS JOIN LATERAL (
       SELECT 'lost its primary key' AS wrong
        WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid)
        UNION ALL
       SELECT 'row-level security without a policy for this user'
        WHERE row_security_active(c.oid) AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)) w
 WHERE s.nspname = 'workerbee' AND c.relkind = 'r'
   AND c.relname IN ('job$' || %(number)s, 'function$' || %(number)s, 'run$' || %(number)s, 'outcome$' || %(number)s);

-- name: adopt_key
-- Give a jobset that was made without a key the first key that signs in it.
UPDATE workerbee."jobset$" SET key = COALESCE(key, %(key)s) WHERE number = %(number)s AND uuid = %(uuid)s RETURNING key;

-- name: restore_key
UPDATE workerbee."jobset$" SET key = %(key)s WHERE number = %(number)s AND uuid = %(uuid)s;

-- name: rename_jobset
UPDATE workerbee."jobset$" SET id = %(id)s WHERE number = %(number)s;

-- name: touch_client
-- Note that a temporary jobset's client is still there.
UPDATE workerbee."jobset$" SET seen_at = now()
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING set_config('synchronous_commit', 'off', true) IS NOT NULL;

-- name: pause
-- Pause a jobset: nothing is claimed from now on, and what runs goes on. Whoever paused it first stays named.
UPDATE workerbee."jobset$"
   SET paused_at = COALESCE(paused_at, now()), paused_by = CASE WHEN paused_at IS NULL THEN %(by)s ELSE paused_by END,
       paused_why = CASE WHEN paused_at IS NULL THEN %(why)s ELSE paused_why END
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING paused_at = now(), {durably};

-- name: resume
WITH paused AS MATERIALIZED (
    SELECT number FROM workerbee."jobset$"
     WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL AND paused_at IS NOT NULL FOR UPDATE
)
UPDATE workerbee."jobset$" j SET paused_at = NULL, paused_by = NULL, paused_why = NULL
  FROM paused p WHERE j.number = p.number
RETURNING pg_notify('workerbee$work', j.number::text), {durably};

-- name: ask
-- Ask a job's bee to show, for the next seconds, what the job prints; or, for a negative number, where it is. What
-- others asked for an hour ago is deleted.
WITH stale AS (
    DELETE FROM workerbee."tail$" t WHERE asked_until < now() - interval '1 hour' AND (jobset, job) <> (%(number)s::integer, %(job)s::bigint)
)
INSERT INTO workerbee."tail$" AS t (jobset, job, asked_by, asked_until)
SELECT number, %(job)s, %(by)s::text, now() + make_interval(secs => %(seconds)s) FROM workerbee."jobset$"
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
ON CONFLICT (jobset, job) DO UPDATE
   SET asked_by = excluded.asked_by, asked_until = GREATEST(t.asked_until, excluded.asked_until),
       pushed_at = CASE WHEN t.asked_until > now() THEN t.pushed_at END
RETURNING set_config('synchronous_commit', 'off', true);

-- name: mark_dropped
UPDATE workerbee."jobset$" SET dropped_at = COALESCE(dropped_at, now())
 WHERE number = %(number)s AND uuid = %(uuid)s;

-- name: hold_jobset
-- Lock a jobset as the first step of a drop, so that its number can't become another jobset's meanwhile.
SELECT number FROM workerbee."jobset$" WHERE number = %(number)s AND uuid = %(uuid)s FOR UPDATE;

-- name: forget_jobset
-- Delete a jobset's rows in the shared tables: the last step of a drop, in the transaction that drops its tables.
WITH batches AS (DELETE FROM workerbee."batch$" WHERE jobset = %(number)s),
     counters AS (DELETE FROM workerbee."counter$" WHERE jobset = %(number)s),
     services AS (DELETE FROM workerbee."service$" WHERE jobset = %(number)s),
     minutes AS (DELETE FROM workerbee."history$" WHERE jobset = %(number)s),
     tails AS (DELETE FROM workerbee."tail$" WHERE jobset = %(number)s)
DELETE FROM workerbee."jobset$" WHERE number = %(number)s;

-- name: be_patient
-- Set how long this transaction waits for each lock.
SELECT set_config('lock_timeout', %(patience)s, true);

-- name: dropped_jobsets
-- List jobsets to sweep: those whose drop was not finished, and temporary ones whose client has been silent for an
-- hour. Those of other users are left out.
SELECT number, id, uuid, key, speculate, client FROM workerbee."jobset$"
 WHERE (dropped_at IS NOT NULL OR seen_at < now() - interval '1 hour')
   AND NOT EXISTS (SELECT FROM unnest(%(tables)s::text[]) AS t (name)
                     JOIN pg_class ON oid = to_regclass(format('workerbee.%%I', name || '$' || number))
                    WHERE NOT pg_has_role(relowner, 'USAGE'))
 LIMIT 20;

-- name: reserve_jobs
-- Reserve a block of ids, which the client gives to its jobs. The commit is synchronous, or a crash could give the same
-- block to two clients.
UPDATE workerbee."jobset$" SET next_id = next_id + %(n)s, added_at = now()
 WHERE number = %(number)s AND uuid = %(uuid)s AND dropped_at IS NULL
RETURNING next_id - %(n)s, {durably};

-- name: beat
-- Record a heartbeat, and tell the bee whether it was given up meanwhile: others may have taken its work.
-- `served_since` starts anew after a gap, on another connection and after a step of the clock, because a bee that was
-- cut off itself can't tell who else is dead. By itself a bee is silent for a third of its lease at most. Bees are
-- counted up to a hundred and estimated beyond: if each counted all with every heartbeat, a large crowd would do little
-- else.
WITH counted AS (
    SELECT count(*) AS n FROM (SELECT FROM workerbee."bee$" WHERE lease_until > now() LIMIT 100) b
), beat AS (
    INSERT INTO workerbee."bee$" AS b (incarnation, jobset, host, pid, python, runners, version, cpus, launch, place,
                                       ends_at, lease_until, backend, backend_start, resting)
    SELECT %(bee)s, %(jobset)s, %(host)s, %(pid)s, %(python)s, %(runners)s, %(version)s, %(cpus)s, %(launch)s,
           %(place)s, now() + make_interval(secs => %(lifetime)s),
           now() + make_interval(secs => %(lease)s), %(backend)s,
           -- pg_stat_activity would look at every session.
           (SELECT backend_start FROM pg_stat_get_activity(%(backend)s::integer)
             WHERE %(backend)s::integer IS NOT NULL), %(resting)s
    ON CONFLICT (incarnation) DO UPDATE
       SET seen_at = now(), lease_until = excluded.lease_until, resting = excluded.resting,
           backend = excluded.backend, backend_start = excluded.backend_start,
           served_since = CASE WHEN (b.backend, b.backend_start)
                                    IS DISTINCT FROM (excluded.backend, excluded.backend_start)
                                 OR now() < b.seen_at
                                 OR now() - b.seen_at > GREATEST({lease}, (b.lease_until - b.seen_at) / 3)
                               THEN now() ELSE b.served_since END
    RETURNING given_up_at IS NOT NULL AS given_up, set_config('synchronous_commit', 'off', true)
)
SELECT given_up, extract(epoch FROM now())::double precision,
       CASE WHEN n < 100 THEN n ELSE GREATEST(n, (
           SELECT reltuples::bigint FROM pg_class WHERE oid = 'workerbee."bee$"'::regclass)) END AS n_bees
  FROM beat, counted;

-- name: set_back
-- Correct times after the server's clock was set back by so many seconds. A time that lies further in the future than
-- any statement writes one was written before the step, and is moved back; so a second correction changes nothing. Rows
-- that somebody has locked are passed over: their owner is about to write them.
WITH bees AS (
    UPDATE workerbee."bee$" b
       SET seen_at = seen_at - make_interval(secs => %(step)s), served_since = now(),
           lease_until = lease_until - make_interval(secs => %(step)s)
     WHERE incarnation IN (SELECT incarnation FROM workerbee."bee$" WHERE seen_at > now() + {lease}
                              FOR UPDATE SKIP LOCKED)
), clients AS (
    UPDATE workerbee."jobset$" j SET seen_at = seen_at - make_interval(secs => %(step)s)
     WHERE number IN (SELECT number FROM workerbee."jobset$" WHERE seen_at > now() + {silence}
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
               WHERE claim IS NOT NULL AND GREATEST(claimed_at, marked_at) > now() + {lease}
                 FOR UPDATE SKIP LOCKED);

-- name: leave
-- Note that a bee leaves in order. Whatever it still holds is claimable at once.
WITH gone AS (DELETE FROM workerbee."bee$" WHERE incarnation = %(bee)s RETURNING *)
INSERT INTO workerbee."departed$" (incarnation, jobset, host, pid, python, version, runners, cpus, launch, place,
                                   started_at, left_at, last_words)
SELECT incarnation, jobset, host, pid, python, version, runners, cpus, launch, place, started_at, now(), %(words)s
  FROM gone
ON CONFLICT DO NOTHING;

-- name: vacancy
-- Find a jobset to which nothing was ever added and whose maker is gone: its connection has ended or, behind a pooler,
-- it was made a minute ago. If no maker was noted, it was made an hour ago. Of processes that were started together one
-- is the maker, however soon it ends: the others take its place only after ten seconds.
SELECT j.number, j.uuid, j.maker_at::text
  FROM workerbee."jobset$" j
 WHERE j.dropped_at IS NULL AND j.id = %(id)s
   AND NOT EXISTS (SELECT FROM workerbee."counter$" c WHERE c.jobset = j.number AND c.added > 0)
   AND (j.maker_at IS NULL OR (j.maker_host, j.maker_pid) = (%(host)s, %(pid)s)
        OR j.maker_at < now() - make_interval(secs => LEAST(%(age)s, 10)))
   AND CASE WHEN j.maker_at IS NULL THEN j.created_at < now() - interval '1 hour'
            WHEN j.maker_backend IS NULL THEN j.maker_at < now() - interval '1 minute'
            ELSE NOT EXISTS (SELECT FROM pg_stat_activity a
                              WHERE a.pid = j.maker_backend
                                -- Of other users' sessions only the superuser sees more than the pid.
                                AND COALESCE(a.backend_start, j.maker_backend_start) = j.maker_backend_start) END;

-- name: note_maker
-- Note who is to bring a jobset's first jobs. Of several who find the maker before gone, one takes its place.
UPDATE workerbee."jobset$"
   SET maker_at = clock_timestamp(), maker_host = %(host)s, maker_pid = %(pid)s, maker_backend = %(backend)s,
       maker_backend_start = (SELECT backend_start FROM pg_stat_get_activity(%(backend)s::integer)
                               WHERE %(backend)s::integer IS NOT NULL)
 WHERE number = %(number)s AND uuid = %(uuid)s AND maker_at::text IS NOT DISTINCT FROM %(before)s
RETURNING number;

-- name: forget_bees
-- Count bees that vanished an hour ago and hold nothing as departed, and forget those that departed a week ago.
WITH gone AS (
    DELETE FROM workerbee."bee$" b
     WHERE lease_until < now() - interval '1 hour'
       AND NOT EXISTS (SELECT FROM workerbee."batch$" h WHERE h.bee = b.incarnation AND h.claim IS NOT NULL)
    RETURNING *
), kept AS (
    INSERT INTO workerbee."departed$" (incarnation, jobset, host, pid, python, version, runners, cpus, launch, place,
                                       started_at, left_at)
    SELECT incarnation, jobset, host, pid, python, version, runners, cpus, launch, place, started_at, seen_at FROM gone
    ON CONFLICT DO NOTHING
)
DELETE FROM workerbee."departed$" WHERE left_at < now() - interval '7 days';

-- name: live_bees
-- Count the bees that could do this jobset's work.
SELECT count(*) FROM workerbee."bee$"
 WHERE (jobset = %(number)s OR jobset IS NULL) AND lease_until > now() - {idle_lease};

-- name: live_runners
-- Count the runners that could do this jobset's work.
SELECT COALESCE(sum(runners), 0) FROM workerbee."bee$"
 WHERE (jobset = %(number)s OR jobset IS NULL) AND lease_until > now() AND NOT resting;

-- name: offers
-- List the next jobsets with work to claim, for a bee that serves them all: one probe of the index for each. Jobsets
-- that nobody may serve now are listed without their columns, because the next page begins after them too.
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
        WHERE number = o.jobset AND dropped_at IS NULL AND paused_at IS NULL
          AND (seen_at IS NULL OR seen_at BETWEEN now() - {silence} AND now() + {silence})
        LIMIT 1) j ON true
 ORDER BY o.jobset;

-- name: held_elsewhere
-- List the jobsets in which other bees hold work, which may lapse or lag. Every bee asks with each heartbeat, so each
-- jobset takes one probe of the index, however many bees hold something there.
WITH RECURSIVE held AS (
    (SELECT jobset FROM workerbee."batch$"
      WHERE claim IS NOT NULL AND (bee <> %(bee)s OR bee IS NULL)
        AND jobset BETWEEN COALESCE(%(jobset)s::integer, 0) AND COALESCE(%(jobset)s::integer, 2147483647)
      ORDER BY jobset LIMIT 1)
    UNION ALL
    SELECT (SELECT jobset FROM workerbee."batch$"
             WHERE claim IS NOT NULL AND (bee <> %(bee)s OR bee IS NULL)
               AND jobset > h.jobset AND jobset <= COALESCE(%(jobset)s::integer, 2147483647)
             ORDER BY jobset LIMIT 1)
      FROM held h WHERE h.jobset IS NOT NULL
)
SELECT jobset FROM held WHERE jobset IS NOT NULL;

-- name: counts
SELECT {counters: total(#) AS #}
  FROM workerbee."counter$" WHERE jobset = %(number)s;

-- name: fold_counters
-- Add up the rows of writers that are gone into one. A writer that comes back makes a new row.
WITH left_behind AS MATERIALIZED (
    SELECT c.writer FROM workerbee."counter$" c
     WHERE c.jobset = %(number)s AND c.writer <> '00000000-0000-0000-0000-000000000000'
       AND NOT EXISTS (SELECT FROM workerbee."bee$" b WHERE b.incarnation = c.writer)
     ORDER BY c.writer LIMIT 1000 FOR UPDATE OF c SKIP LOCKED
), gone AS (
    DELETE FROM workerbee."counter$" c USING left_behind l
     WHERE c.jobset = %(number)s AND c.writer = l.writer AND (SELECT count(*) FROM left_behind) >= %(least)s
    RETURNING c.*
)
INSERT INTO workerbee."counter$" AS c (jobset, writer, {counters})
SELECT %(number)s, '00000000-0000-0000-0000-000000000000', {counters: total(#)}
  FROM gone HAVING count(*) > 0
ON CONFLICT (jobset, writer) DO UPDATE SET {counters: # = c.# + excluded.#};

-- name: note_minute
-- Note the counters of these jobsets in their history: once a minute, by the first bee that comes, and only if
-- something has happened since the last row. It may commit asynchronously.
INSERT INTO workerbee."history$" (jobset, minute, {history}, bees, runners)
SELECT s.jobset, date_trunc('minute', now()), {s.history}, b.bees, b.runners
  FROM unnest(%(numbers)s::integer[]) AS n (jobset)
 CROSS JOIN LATERAL (
       SELECT c.jobset, {history: total(#) AS #}
         FROM workerbee."counter$" c WHERE c.jobset = n.jobset GROUP BY c.jobset) s
  LEFT JOIN LATERAL (
       SELECT * FROM workerbee."history$" WHERE jobset = n.jobset ORDER BY minute DESC LIMIT 1) h ON true
 CROSS JOIN LATERAL (
       SELECT count(*) AS bees, LEAST(total(runners), 2147483647) AS runners FROM workerbee."bee$"
        WHERE lease_until > now() AND (jobset = n.jobset OR jobset IS NULL)) b
 WHERE h.minute IS NULL
    OR (h.minute < date_trunc('minute', now())
        AND ({s.history}) IS DISTINCT FROM ({h.history}))
ON CONFLICT DO NOTHING
RETURNING jobset, set_config('synchronous_commit', 'off', true);

-- name: thin_history
-- Keep one minute of ten of what is older than a day, and one of an hour of what is older than a week: the last one.
DELETE FROM workerbee."history$" h
 USING (SELECT minute,
               lead(minute) OVER (ORDER BY minute) AS next,
               CASE WHEN minute < now() - interval '7 days' THEN 3600 ELSE 600 END AS seconds
          FROM workerbee."history$" WHERE jobset = %(number)s AND minute < now() - interval '1 day') o
 WHERE h.jobset = %(number)s AND h.minute = o.minute
   AND floor(extract(epoch FROM o.minute) / o.seconds) = floor(extract(epoch FROM o.next) / o.seconds);
-- name: remaining
-- Tell what is left to do. A job without an outcome is in a batch, so nothing has to be counted: no batch means no
-- work. By the functions of what waits, a bee sees whether it can run any of it.
SELECT EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = %(number)s) AS any_batch,
       EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = %(number)s AND claim IS NOT NULL) AS any_held,
       (SELECT array_agg(DISTINCT function) FROM workerbee."batch$"
         WHERE jobset = %(number)s AND claim IS NULL) AS functions,
       EXISTS (SELECT FROM workerbee."counter$" WHERE jobset = %(number)s AND added > 0) AS ever_added,
       (SELECT left(concat_ws(': ', paused_by, paused_why), 500)
          FROM workerbee."jobset$" WHERE number = %(number)s AND paused_at IS NOT NULL) AS paused;

-- name: hint_work
-- Hint that there is work. Whoever misses it polls.
SELECT pg_notify('workerbee$work', %(number)s::text), set_config('synchronous_commit', 'off', true);

-- name: recall
-- Ask bees to give back the jobs of this jobset that they have not begun, because somebody wants to cancel some.
SELECT pg_notify('workerbee$work', 'recall ' || %(number)s), set_config('synchronous_commit', 'off', true);

-- name: hint_done
SELECT pg_notify('workerbee$done$' || %(number)s, %(jobs)s), set_config('synchronous_commit', 'off', true);
