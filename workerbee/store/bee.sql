-- What a bee says of one jobset. Each edge of a batch's life is one statement, fenced by the holder's
-- incarnation and claim where only the holder may take it.

-- name: claim
-- Take the front of what waits, at most %(n)s jobs; the rest stays claimable at its place. SKIP LOCKED
-- lets many bees do this at once, each meeting the next free header. The locks are taken in CTEs of
-- their own, because a locking LIMIT inside an UPDATE may touch more rows than it says. A claim may
-- commit asynchronously: if a crash undoes it, the jobs are just claimable again.
WITH allowed AS (
    SELECT FROM workerbee."jobset$"
     WHERE number = {number} AND dropped_at IS NULL
       AND (seen_at IS NULL OR seen_at > now() - interval '10 seconds')
), ready AS MATERIALIZED (
    SELECT id, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY priority DESC, place LIMIT %(headers)s FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT id, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at <= now()
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY due_at LIMIT %(headers)s FOR UPDATE SKIP LOCKED
), front AS (
    SELECT f.*, cardinality(jobs) AS size,
           (sum(cardinality(jobs)) OVER (ORDER BY priority DESC, place, id) - cardinality(jobs))::integer AS before
      FROM (TABLE ready UNION ALL TABLE due) f
), taken AS (
    UPDATE workerbee."batch$" b
       SET bee = %(bee)s, claim = %(claim)s, claimed_at = now(), due_at = NULL,
           started = LEAST(f.size, GREATEST(0, %(start)s - f.before))
      FROM front f WHERE b.id = f.id AND f.before + f.size <= %(n)s
    RETURNING b.*
), cut AS (
    UPDATE workerbee."batch$" b SET jobs = b.jobs[%(n)s - f.before + 1:]
      FROM front f WHERE b.id = f.id AND f.before < %(n)s AND f.before + f.size > %(n)s
    RETURNING b.*, f.jobs[:%(n)s - f.before] AS head, f.before
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
SELECT h.id, h.function, h.run, h.timeout, h.max_attempts, h.again, h.started,
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
       WHERE NOT h.again OR NOT EXISTS (SELECT FROM {outcome} o WHERE o.job = u.job AND o.run = h.run)
  ) j ON true
 ORDER BY h.priority DESC, h.place, h.id, j.n;

-- name: start
-- The one point of agreement on "started": the mark moves under the row's lock, and what was cancelled
-- or taken over beyond it is no longer in `jobs`.
UPDATE workerbee."batch$" SET started = LEAST(GREATEST(started, %(started)s), cardinality(jobs)), marked_at = now()
 WHERE id = %(batch)s AND bee = %(bee)s AND claim = %(claim)s
RETURNING started, jobs, set_config('synchronous_commit', 'off', true);

-- name: complete
-- A success is accepted from whoever commits first in its run, lease or not; the primary key decides.
-- The batches named in `closed` have nothing open any more.
WITH given AS (
    SELECT job::bigint, run::integer, codec, output::json, decode(payload, 'hex') AS payload,
           decode(mac, 'hex') AS mac, duration::real
      FROM unnest(string_to_array(%(job)s, E'\n'), string_to_array(%(run)s, E'\n'),
                  string_to_array(%(codec)s, E'\n'), string_to_array(%(output)s, E'\n', ''),
                  string_to_array(%(payload)s, E'\n', ''), string_to_array(%(mac)s, E'\n', ''),
                  string_to_array(%(duration)s, E'\n'))
           AS g (job, run, codec, output, payload, mac, duration)
), closed AS (
    DELETE FROM workerbee."batch$" b USING unnest(%(closed)s::bigint[], %(claims)s::uuid[]) AS c (id, claim)
     WHERE b.id = c.id AND b.bee = %(bee)s AND b.claim = c.claim
), stored AS (
    INSERT INTO {outcome} (job, run, status, codec, output, payload, mac, bee, duration)
    SELECT job, run, 'completed', codec, output, payload, mac, %(bee)s, duration FROM given
     ORDER BY job, run
    {or_nothing} RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, completed)
    SELECT {number}, %(bee)s, count(*) FROM stored HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET completed = c.completed + excluded.completed
), hinted AS (
    -- Results ride along only if all of them are really the recorded ones.
    SELECT pg_notify('workerbee$done$' || {number},
                     CASE WHEN (SELECT count(*) FROM stored) = (SELECT count(*) FROM given) THEN %(hint)s
                          ELSE split_part(%(hint)s, E'\n', 1) END)
      FROM (SELECT FROM stored LIMIT 1) s WHERE %(hint)s IS NOT NULL
), durable AS (
    SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') = 'off'
)
SELECT (SELECT count(*) FROM stored), (SELECT count(*) FROM hinted), (SELECT count(*) FROM durable);

-- name: late
-- Outcomes that another execution had recorded before ours: counted, and otherwise ignored.
WITH late AS (
    SELECT o.job, o.run FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS g (job, run)
      JOIN {outcome} o ON o.job = g.job AND o.run = g.run AND o.bee IS DISTINCT FROM %(bee)s
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host) SELECT job, run, 'late', %(bee)s, %(host)s FROM late
)
INSERT INTO workerbee."counter$" AS c (jobset, writer, late)
SELECT {number}, %(bee)s, count(*) FROM late HAVING count(*) > 0
ON CONFLICT (jobset, writer) DO UPDATE SET late = c.late + excluded.late;

-- name: fail
-- A failed attempt counts only from the present holder, and only while the run is open. It is charged
-- under its kind; under the limit the job becomes a batch of its own: behind what waits now and after
-- a backoff if it failed, at its old place if its runner died. At the limit the run ends as failed.
-- While another live copy of the job runs, it is an attempt and nothing more: the last copy decides.
WITH held AS MATERIALIZED (
    SELECT h.* FROM workerbee."batch$" h
     WHERE h.id = %(batch)s AND h.bee = %(bee)s AND h.claim = %(claim)s AND %(job)s = ANY (h.jobs)
       FOR UPDATE
), open AS MATERIALIZED (
    SELECT h.* FROM held h
     WHERE NOT EXISTS (SELECT FROM {outcome} o WHERE o.job = %(job)s AND o.run = h.run)
), copies AS MATERIALIZED (
    SELECT c.id FROM workerbee."batch$" c, open h
     WHERE c.jobset = {number} AND c.claim IS NOT NULL AND %(job)s = ANY (c.jobs)
       AND (c.copy_of = h.id OR c.id = h.copy_of)
       AND EXISTS (SELECT FROM workerbee."bee$" b WHERE b.incarnation = c.bee AND b.lease_until > now())
     ORDER BY c.id FOR UPDATE OF c
), survivor AS (
    UPDATE workerbee."batch$" c SET copy_of = NULL
     WHERE c.id IN (SELECT id FROM copies) AND c.copy_of IS NOT NULL
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host, error)
    SELECT %(job)s, run, %(kind)s, %(bee)s, %(host)s, %(error)s FROM open
), charge AS (
    SELECT 1 + count(*) AS n FROM {attempt} a, open h
     WHERE a.job = %(job)s AND a.run = h.run AND a.kind = %(kind)s
), verdict AS (
    SELECT h.*, (SELECT n FROM charge) AS n, EXISTS (SELECT FROM copies) AS raced,
           (SELECT n FROM charge) >= COALESCE(CASE WHEN %(kind)s = 'failed' THEN h.max_attempts END,
                                              %(limit)s) AS final
      FROM open h
), requeued AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, due_at, timeout, max_attempts,
                                    speculate, again, jobs)
    SELECT jobset, function, run, priority,
           CASE WHEN %(kind)s = 'died' THEN place ELSE nextval('workerbee."place$"') END,
           CASE WHEN %(kind)s <> 'died' THEN now() + make_interval(secs =>
               LEAST(%(max_backoff)s, %(backoff)s * 2 ^ (n - 1)) * (0.5 + random() / 2)) END,
           timeout, max_attempts, speculate, true, ARRAY[%(job)s::bigint]
      FROM verdict WHERE NOT final AND NOT raced
    RETURNING id
), ended AS (
    INSERT INTO {outcome} (job, run, status, codec, output, payload, mac, bee, duration)
    SELECT %(job)s, run, 'failed', %(codec)s, %(output)s, %(payload)s, %(mac)s, %(bee)s, %(duration)s
      FROM verdict WHERE final AND NOT raced
    ON CONFLICT DO NOTHING RETURNING job
), removed AS (
    UPDATE workerbee."batch$" b
       SET jobs = array_remove(b.jobs, %(job)s),
           started = b.started - (array_position(b.jobs, %(job)s) <= b.started)::integer
      FROM held h WHERE b.id = h.id
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, failed, retried)
    SELECT {number}, %(bee)s, (SELECT count(*) FROM ended), (SELECT count(*) FROM requeued) FROM open
    ON CONFLICT (jobset, writer)
    DO UPDATE SET failed = c.failed + excluded.failed, retried = c.retried + excluded.retried
), hinted AS (
    SELECT pg_notify('workerbee$done$' || {number}, job::text) FROM ended
), durable AS (
    SELECT set_config('synchronous_commit', 'on', true)
     WHERE current_setting('synchronous_commit') = 'off'
)
SELECT CASE WHEN NOT EXISTS (SELECT FROM held) THEN 'ignored'
            WHEN EXISTS (SELECT FROM ended) THEN 'failed'
            WHEN EXISTS (SELECT FROM requeued) THEN 'retried'
            ELSE 'noted' END,
       (SELECT count(*) FROM hinted), (SELECT count(*) FROM durable);

-- name: release
-- Give back what has not run, uncharged, to its old place. A copy is just dropped: its original runs.
WITH held AS MATERIALIZED (
    SELECT * FROM workerbee."batch$"
     WHERE id = %(batch)s AND bee = %(bee)s AND claim = %(claim)s FOR UPDATE
), back AS (
    SELECT array_agg(u.job ORDER BY u.n) AS jobs,
           count(*) FILTER (WHERE u.n <= h.started)::integer AS n_started
      FROM held h CROSS JOIN LATERAL unnest(h.jobs) WITH ORDINALITY AS u (job, n)
     WHERE u.job = ANY (%(jobs)s)
), returned AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate,
                                    again, jobs)
    SELECT h.jobset, h.function, h.run, h.priority, h.place, h.timeout, h.max_attempts, h.speculate,
           h.again OR NOT %(untouched)s, b.jobs
      FROM held h, back b WHERE b.jobs IS NOT NULL AND h.copy_of IS NULL
    RETURNING id
), kept AS (
    UPDATE workerbee."batch$" b
       SET started = b.started - k.n_started,
           jobs = ARRAY(SELECT u.job FROM unnest(b.jobs) WITH ORDINALITY AS u (job, n)
                         WHERE u.job <> ALL (%(jobs)s) ORDER BY u.n)
      FROM held h, back k WHERE b.id = h.id AND NOT h.jobs <@ %(jobs)s::bigint[]
), closed AS (
    DELETE FROM workerbee."batch$" b USING held h WHERE b.id = h.id AND h.jobs <@ %(jobs)s::bigint[]
)
SELECT (SELECT count(*) FROM returned), pg_notify('workerbee$work', {number}::text);

-- name: release_unknown
-- After a cut connection: claims whose answer never came are given back, else they would be held as
-- long as their bee lives. A copy is just dropped.
WITH copies AS (
    DELETE FROM workerbee."batch$" WHERE jobset = {number} AND bee = %(bee)s AND claim IS NOT NULL
       AND copy_of IS NOT NULL AND claim <> ALL (%(claims)s::uuid[])
)
UPDATE workerbee."batch$" SET bee = NULL, claim = NULL, claimed_at = NULL, started = 0
 WHERE jobset = {number} AND bee = %(bee)s AND claim IS NOT NULL AND copy_of IS NULL
   AND claim <> ALL (%(claims)s::uuid[]) AND cardinality(jobs) > 0;

-- name: held_claims
-- Which of its claims a bee that was cut off still holds, with what is left of them.
SELECT id, claim::text, jobs FROM workerbee."batch$"
 WHERE jobset = {number} AND bee = %(bee)s AND claim IS NOT NULL;

-- name: rescue
-- Work of bees whose lease has lapsed, or whose connection has ended (a suspicion, good enough when the
-- next heartbeat is overdue too) goes back: what had not started at its old place and as it was; what had started,
-- each job alone, so that the next loss names its job. Only a bee that was itself served without a
-- break for two leases may judge, and not in the first two leases of the server.
WITH me AS (
    SELECT FROM workerbee."bee$"
     WHERE incarnation = %(bee)s AND served_since < now() - make_interval(secs => 2 * %(lease)s)
       AND pg_postmaster_start_time() < now() - make_interval(secs => 2 * %(lease)s)
), lapsed AS MATERIALIZED (
    SELECT h.*, COALESCE(b.host, '?') AS host
      FROM workerbee."batch$" h LEFT JOIN workerbee."bee$" b ON b.incarnation = h.bee
     WHERE h.jobset = {number} AND h.claim IS NOT NULL AND h.bee <> %(bee)s AND EXISTS (SELECT FROM me)
       AND (b.incarnation IS NULL OR b.lease_until < now()
            OR (b.backend IS NOT NULL AND b.seen_at < now() - make_interval(secs => 0.35 * %(lease)s)
                AND NOT EXISTS (SELECT FROM pg_stat_activity a
                                 WHERE a.pid = b.backend AND a.backend_start = b.backend_start)))
     ORDER BY h.id LIMIT 50 FOR UPDATE OF h SKIP LOCKED
), unfinished AS (
    SELECT l.id, l.bee, l.host, l.copy_of, u.job, u.n <= l.started AS begun, l.run,
           EXISTS (SELECT FROM workerbee."batch$" c
                    WHERE c.jobset = {number} AND c.claim IS NOT NULL AND c.copy_of = l.id
                      AND u.job = ANY (c.jobs) AND c.id NOT IN (SELECT id FROM lapsed)) AS copied
      FROM lapsed l CROSS JOIN LATERAL unnest(l.jobs) WITH ORDINALITY AS u (job, n)
     WHERE NOT EXISTS (SELECT FROM {outcome} o WHERE o.job = u.job AND o.run = l.run)
), deleted AS (
    DELETE FROM workerbee."batch$" b USING lapsed l WHERE b.id = l.id
), survivors AS (
    UPDATE workerbee."batch$" c SET copy_of = NULL
     WHERE c.copy_of IN (SELECT id FROM lapsed) AND c.id NOT IN (SELECT id FROM lapsed)
), waiting AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate,
                                    again, jobs)
    SELECT l.jobset, l.function, l.run, l.priority, l.place, l.timeout, l.max_attempts, l.speculate, l.again,
           array_agg(u.job ORDER BY u.job)
      FROM lapsed l JOIN unfinished u USING (id) WHERE NOT u.begun AND l.copy_of IS NULL
     GROUP BY l.id, l.jobset, l.function, l.run, l.priority, l.place, l.timeout, l.max_attempts, l.speculate,
              l.again
), alone AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate,
                                    again, jobs)
    SELECT l.jobset, l.function, l.run, l.priority, l.place, l.timeout, l.max_attempts, l.speculate, true,
           ARRAY[u.job]
      FROM lapsed l JOIN unfinished u USING (id) WHERE u.begun AND l.copy_of IS NULL AND NOT u.copied
    RETURNING id
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host, alone)
    SELECT u.job, u.run, 'lost', u.bee, u.host,
           (SELECT count(*) FROM unfinished o WHERE o.bee = u.bee AND o.begun) = 1
      FROM unfinished u WHERE u.begun
    RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, lost)
    SELECT {number}, %(bee)s, count(*) FROM noted HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET lost = c.lost + excluded.lost
)
SELECT (SELECT count(*) FROM lapsed), (SELECT array_agg(DISTINCT bee::text) FROM lapsed);

-- name: take_over
-- With nothing left to claim: what another bee holds and has not begun becomes claimable again, at its old
-- place, if that bee's mark has stood still for longer than a slice of work takes. Half of it, so that both
-- have something to do; all of it from a bee that seems stuck. The row lock makes starting and taking over
-- take turns, and beyond the mark nothing has begun: no job is run twice.
WITH slow AS MATERIALIZED (
    SELECT *, CASE WHEN COALESCE(marked_at, claimed_at) < now() - interval '1 second' THEN started
                   ELSE (started + cardinality(jobs)) / 2 END AS kept
      FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NOT NULL AND bee <> %(bee)s AND started < cardinality(jobs)
       AND COALESCE(marked_at, claimed_at) < now() - interval '200 milliseconds'
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
     ORDER BY COALESCE(marked_at, claimed_at) LIMIT 1 FOR UPDATE SKIP LOCKED
), shortened AS (
    UPDATE workerbee."batch$" b SET jobs = s.jobs[:s.kept] FROM slow s WHERE b.id = s.id
)
INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate, again,
                                jobs)
SELECT jobset, function, run, priority, place, timeout, max_attempts, speculate, again, jobs[kept + 1:] FROM slow
RETURNING cardinality(jobs), set_config('synchronous_commit', 'off', true);

-- name: came_back
-- A bee that was only cut off for less than a minute had not vanished: no job is blamed for it.
UPDATE {attempt} SET alone = false
 WHERE bee = %(bee)s AND kind = 'lost' AND at > now() - interval '1 minute';

-- name: speculate
-- With nothing left to claim, one extra copy of the straggler that is expected to take longest: held
-- for more than twice the median, and more than the 95th percentile, of what this function's jobs took.
WITH pace AS MATERIALIZED (
    SELECT h.function, h.run,
           (SELECT ARRAY[percentile_cont(0.5) WITHIN GROUP (ORDER BY d.duration),
                         percentile_cont(0.95) WITHIN GROUP (ORDER BY d.duration), count(*)]
              FROM (SELECT job, duration FROM {outcome} WHERE status = 'completed' AND duration IS NOT NULL
                     ORDER BY job DESC LIMIT 1000) d
              JOIN {job} j ON j.id = d.job AND j.function = h.function) AS took
      FROM (SELECT DISTINCT function, run FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NOT NULL AND started > 0 AND speculate
               AND bee <> %(bee)s AND claimed_at < now() - interval '50 milliseconds') h
), slow AS MATERIALIZED (
    SELECT h.id, h.jobset, h.function, h.run, h.priority, h.place, h.timeout, h.max_attempts,
           (SELECT u.job FROM unnest(h.jobs[:h.started]) WITH ORDINALITY AS u (job, n)
             WHERE NOT EXISTS (SELECT FROM {outcome} o WHERE o.job = u.job AND o.run = h.run)
               AND NOT EXISTS (SELECT FROM workerbee."batch$" c
                                WHERE c.jobset = {number} AND c.copy_of = h.id AND u.job = ANY (c.jobs))
             ORDER BY u.n LIMIT 1) AS job
      FROM workerbee."batch$" h JOIN pace p USING (function, run)
     WHERE h.jobset = {number} AND h.claim IS NOT NULL AND h.started > 0 AND h.speculate AND h.copy_of IS NULL
       AND h.bee <> %(bee)s AND h.function <> ALL (%(refused)s)
       AND (%(only)s::integer[] IS NULL OR h.function = ANY (%(only)s))
       AND p.took[3] >= 3
       AND now() - h.claimed_at > make_interval(secs =>
               h.started * GREATEST(0.05, 2 * p.took[1], p.took[2]))
     ORDER BY h.claimed_at LIMIT 1 FOR UPDATE OF h SKIP LOCKED
), copy AS (
    INSERT INTO workerbee."batch$" (jobset, function, run, priority, place, timeout, max_attempts, speculate,
                                    again, jobs, bee, claim, claimed_at, started, copy_of)
    SELECT jobset, function, run, priority, place, timeout, max_attempts, true, true, ARRAY[job],
           %(bee)s, %(claim)s, now(), 1, id
      FROM slow WHERE job IS NOT NULL
    RETURNING *
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host)
    SELECT c.jobs[1], c.run, 'copy', %(bee)s, %(host)s FROM copy c
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, speculative)
    SELECT {number}, %(bee)s, 1 FROM copy
    ON CONFLICT (jobset, writer) DO UPDATE SET speculative = c.speculative + 1
)
SELECT h.id, h.function, h.run, h.timeout, h.max_attempts, h.again, h.started,
       j.id, j.codec, j.input::text, j.payload, j.mac,
       1, 0, true
  FROM copy h JOIN {job} j ON j.id = h.jobs[1];

-- name: overtaken
-- Jobs that this bee runs in vain, because their run has ended elsewhere: the losers of a race, and
-- running jobs that were cancelled. What was claimed just now is not worth the look.
SELECT h.id, h.claim::text, u.job
  FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[:h.started]) AS u (job)
  JOIN {outcome} o ON o.job = u.job AND o.run = h.run
 WHERE h.jobset = {number} AND h.bee = %(bee)s AND h.claim IS NOT NULL
   AND h.claimed_at < now() - interval '300 milliseconds' AND o.bee IS DISTINCT FROM %(bee)s;

-- name: get_function
SELECT digest, name, codec, body, python, mac FROM {function} WHERE number = %(number)s;

-- name: functions_named
-- The functions that --function may stand in for: by the record's name.
SELECT number FROM {function} WHERE name = %(name)s;
