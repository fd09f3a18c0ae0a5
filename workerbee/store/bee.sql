-- What a bee says of one jobset. Each edge of a batch's life is one statement. Where only the holder may take the edge,
-- the statement compares the holder's incarnation and claim. A job's outcome is looked up by a scalar subquery: for a
-- join or EXISTS the planner may choose a scan while there are few outcomes, and a prepared plan keeps that choice.

-- name: claim
-- Take the front of what waits: at most %(n)s jobs that together cost at most %(budget)s. A job costs what `costs` says
-- of its function, or else `other`. What isn't taken of a header stays claimable at its place. With SKIP LOCKED many
-- bees do this at once, and each gets other headers. The rows are locked in CTEs of their own, because an UPDATE with a
-- locking LIMIT inside may touch more rows than the LIMIT says. The claim may commit asynchronously: if a crash undoes
-- it, the jobs are claimable again.
-- While somebody holds an old snapshot, headers that were claimed since stay in the indexes, and every claim would step
-- over all of them. So most claims then begin at a place in the queue, and look only at what came due lately.
WITH allowed AS (
    SELECT clock_timestamp() AS began FROM workerbee."jobset$"
     WHERE number = {number} AND paused_at IS NULL
       AND (seen_at IS NULL OR seen_at BETWEEN now() - {silence} AND now() + {silence})
       AND {here}
), ready AS MATERIALIZED (
    SELECT id, function, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL {from_place}
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY priority DESC, place LIMIT %(headers)s FOR UPDATE SKIP LOCKED
), due AS MATERIALIZED (
    SELECT id, function, jobs, priority, place FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND due_at <= now() {since}
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
       AND EXISTS (SELECT FROM allowed)
     ORDER BY due_at LIMIT 1000 FOR UPDATE SKIP LOCKED
), offered AS (
    SELECT f.*, cardinality(jobs) AS size,
           COALESCE((%(costs)s::double precision[])[array_position(%(functions)s::integer[], function)],
                    %(other)s::double precision) AS cost
      FROM (SELECT * FROM ready UNION ALL SELECT * FROM due) f
), ahead AS (
    -- Jobs whose backoff is over come after those that have waited longer.
    SELECT o.*, row_number() OVER w AS nth,
           sum(size) OVER w - size AS before, sum(size * cost) OVER w - size * cost AS spent
      FROM offered o WINDOW w AS (ORDER BY priority DESC, place, id)
), front AS (
    SELECT id, jobs, size, before, clock_timestamp() - (SELECT began FROM allowed) AS looked,
           GREATEST(0, LEAST(CASE WHEN nth <= %(headers)s THEN size ELSE 0 END, %(n)s - before,
                             ceil((%(budget)s::double precision - spent) / cost - 1e-6)))::integer AS room
      FROM ahead
), taken AS (
    UPDATE workerbee."batch$" b
       SET bee = %(bee)s, claim = %(claim)s, claimed_at = now(), due_at = NULL,
           started = LEAST(f.size, GREATEST(0, %(start)s - f.before))
      FROM front f WHERE b.id = f.id AND f.room = f.size
    RETURNING b.*
), cut AS (
    -- What is due and not taken loses its time: from now on the index has it by priority and place, like all that
    -- waits. In the index by time, many jobs of low priority could hide an urgent one.
    UPDATE workerbee."batch$" b SET jobs = b.jobs[f.room + 1:], due_at = NULL
      FROM front f WHERE b.id = f.id AND f.room < f.size AND (f.room > 0 OR b.due_at IS NOT NULL)
    RETURNING b.*, f.jobs[:f.room] AS head, f.before
), part AS (
    INSERT INTO workerbee."batch$" ({header}, place, again, jobs, bee, claim, claimed_at, started)
    SELECT {header}, place, again, head,
           %(bee)s, %(claim)s, now(), LEAST(cardinality(head), GREATEST(0, %(start)s - before))
      FROM cut WHERE cardinality(head) > 0
    RETURNING *
), held AS (
    TABLE taken UNION ALL TABLE part
)
SELECT h.id, h.function, h.run, h.timeout, h.max_attempts, h.again, j.n <= h.started,
       j.id, j.codec, j.input, j.payload, j.mac,
       j.past[1], j.past[2],
       -- A header's place and times are given with its first job alone: with each they would cost more than the job.
       CASE WHEN j.n > 1 THEN NULL ELSE h.priority END, CASE WHEN j.n > 1 THEN NULL ELSE h.place END,
       CASE WHEN j.n > 1 THEN NULL ELSE extract(epoch FROM (SELECT min(looked) FROM front))::double precision END,
       CASE WHEN j.n > 1 THEN NULL ELSE extract(epoch FROM now())::double precision END,
       (SELECT set_config('synchronous_commit', 'off', true)) IS NULL
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

-- name: start
-- Move the mark. This decides which jobs have started: it happens under the row's lock, and jobs beyond the mark that
-- were cancelled or taken over before are no longer in `jobs`.
UPDATE workerbee."batch$" SET started = LEAST(GREATEST(started, %(started)s), cardinality(jobs)), marked_at = now()
 WHERE id = %(batch)s AND bee = %(bee)s AND claim = %(claim)s
RETURNING started, jobs, set_config('synchronous_commit', 'off', true);

-- name: complete
-- Record successes. In each run the first one to commit is accepted, with a lease or without: the primary key decides.
-- The batches in `closed` have no open jobs left. They are deleted first, because a cancellation also locks headers
-- before it writes outcomes.
WITH given AS (
    SELECT job::bigint, run::integer, codec, output::json, decode(payload, 'hex') AS payload,
           decode(mac, 'hex') AS mac, duration::real
      FROM unnest(string_to_array(%(job)s, E'\n'), string_to_array(%(run)s, E'\n'),
                  string_to_array(%(codec)s, E'\n'), string_to_array(%(output)s, E'\n', ''),
                  string_to_array(%(payload)s, E'\n', ''), string_to_array(%(mac)s, E'\n', ''),
                  string_to_array(%(duration)s, E'\n'))
           AS g (job, run, codec, output, payload, mac, duration)
), closed AS (
    -- IS NOT DISTINCT FROM keeps the planner to the primary key: the other indexes still list all the batches that this
    -- bee has closed since the last vacuum.
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
    SELECT {number}, %(writer)s, count(*) FROM stored HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET completed = c.completed + excluded.completed
)
-- The hint carries the results only if each of them was recorded just now.
SELECT n, CASE WHEN n > 0 AND %(hint)s::text IS NOT NULL
               THEN pg_notify('workerbee$done$' || {number},
                              CASE WHEN n = (SELECT count(*) FROM given) THEN %(hint)s
                                   ELSE split_part(%(hint)s, E'\n', 1) END)::text END,
       {durably}
  FROM (SELECT count(*) AS n FROM stored) s;

-- name: keep_texts
-- Keep what executions have printed, and tell whether all texts of the jobset take less than `most` bytes. Once they
-- take more, only those of failed executions are kept. It may commit asynchronously: the end that it belongs
-- to is committed later, and makes it durable too.
WITH room AS MATERIALIZED (
    SELECT COALESCE(pg_total_relation_size(to_regclass('workerbee."text$' || {number} || '"')), 0) < %(most)s AS is_left
), kept AS (
    INSERT INTO {text} (job, run, claim, bee, head, stdout, stderr, stdout_size, stderr_size)
    SELECT job, run, claim, %(bee)s, head, decode(COALESCE(stdout, ''), 'hex'), decode(COALESCE(stderr, ''), 'hex'),
           stdout_size, stderr_size
      FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[], %(claims)s::uuid[], %(failed)s::boolean[],
                  %(heads)s::integer[], string_to_array(%(stdout)s, E'\n'), string_to_array(%(stderr)s, E'\n'),
                  %(stdout_sizes)s::bigint[], %(stderr_sizes)s::bigint[])
           AS g (job, run, claim, failed, head, stdout, stderr, stdout_size, stderr_size), room
     WHERE (failed OR is_left) AND {here}
    ON CONFLICT DO NOTHING
)
SELECT is_left, set_config('synchronous_commit', 'off', true) FROM room;

-- name: note_host
-- Note on which host a bee's results are made: the bee's own row is deleted when it leaves.
INSERT INTO workerbee."service$" (jobset, bee, host) SELECT {number}, %(bee)s, %(host)s WHERE {here}
ON CONFLICT DO NOTHING;

-- name: refuse
-- Tell clients that wait why this bee can't run a function.
INSERT INTO workerbee."service$" AS s (jobset, bee, host, refuses)
SELECT {number}, %(bee)s, %(host)s, jsonb_build_object(%(function)s::integer, %(reason)s::text) WHERE {here}
ON CONFLICT (jobset, bee) DO UPDATE SET refuses = excluded.refuses || s.refuses;

-- name: doubt
-- Note that all jobs of a function that this bee tried last have failed.
INSERT INTO workerbee."service$" AS s (jobset, bee, host, doubts)
SELECT {number}, %(bee)s, %(host)s, ARRAY[%(function)s::integer] WHERE {here}
ON CONFLICT (jobset, bee) DO UPDATE SET doubts = array_remove(s.doubts, %(function)s::integer) || excluded.doubts;

-- name: trust
UPDATE workerbee."service$" SET doubts = array_remove(doubts, %(function)s::integer)
 WHERE jobset = {number} AND bee = %(bee)s AND {here};

-- name: able_bees
-- Count the other bees that neither refuse a function nor fail at it themselves.
SELECT count(*) FROM workerbee."bee$" b
 WHERE b.incarnation <> %(bee)s AND b.lease_until > now() AND (b.jobset IS NULL OR b.jobset = {number})
   AND NOT EXISTS (SELECT FROM workerbee."service$" s
                    WHERE s.jobset = {number} AND s.bee = b.incarnation
                      AND (s.refuses ? %(function)s::integer::text OR %(function)s::integer = ANY (s.doubts)));

-- name: late
-- Count the outcomes that another execution recorded before ours. They change nothing else.
WITH late AS (
    SELECT g.job, g.run FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS g (job, run)
     WHERE (SELECT o.bee IS DISTINCT FROM %(bee)s FROM {outcome} o WHERE o.job = g.job AND o.run = g.run) AND {here}
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host) SELECT job, run, 'late', %(bee)s, %(host)s FROM late
)
INSERT INTO workerbee."counter$" AS c (jobset, writer, late)
SELECT {number}, %(writer)s, count(*) FROM late HAVING count(*) > 0
ON CONFLICT (jobset, writer) DO UPDATE SET late = c.late + excluded.late;

-- name: fail
-- Record a failed attempt. It counts only from the present holder, and only while the run is open. Attempts are counted
-- by kind. Below the limit the job becomes a batch of its own: if it failed, behind what waits now and after a backoff;
-- if its runner died or its caller was lost, at its old place. At the limit the run ends as failed. While another live
-- copy of the job runs, only the attempt is recorded: the last copy decides.
-- All copies are locked in one order. This statement's snapshot must show them as they are when they are locked;
-- otherwise it would miss a copy, that copy's failure or earlier attempts, and it does nothing (`stale`). Copies are
-- looked for only if an attempt says that one was made, because the index may still list all that was held lately.
WITH members AS MATERIALIZED (
    SELECT %(batch)s::bigint AS id
    UNION
    SELECT id FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NOT NULL AND %(job)s = ANY (jobs)
       AND EXISTS (SELECT FROM {attempt} WHERE job = %(job)s AND kind = 'copy')
), family AS MATERIALIZED (
    SELECT c.*, c.xmin AS version FROM workerbee."batch$" c
     WHERE c.id = ANY (ARRAY(SELECT id FROM members)) AND c.jobset = {number} AND %(job)s = ANY (c.jobs)
     ORDER BY c.id FOR UPDATE
), stale AS (
    SELECT FROM family f
     WHERE NOT EXISTS (SELECT FROM workerbee."batch$" s WHERE s.id = f.id AND s.xmin = f.version)
), held AS (
    SELECT f.* FROM family f
     WHERE f.id = %(batch)s AND f.bee = %(bee)s AND f.claim = %(claim)s AND NOT EXISTS (SELECT FROM stale)
), open AS MATERIALIZED (
    SELECT h.* FROM held h
     WHERE (SELECT o.run FROM {outcome} o WHERE o.job = %(job)s AND o.run = h.run) IS NULL
), copies AS (
    SELECT f.id, EXISTS (SELECT FROM workerbee."bee$" b
                          WHERE b.incarnation = f.bee AND b.lease_until > now()) AS live
      FROM family f, open h WHERE f.id <> h.id AND f.run = h.run
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host, alone, error, cause)
    SELECT %(job)s, run, %(kind)s, %(bee)s, %(host)s, %(kind)s = 'lost', %(error)s, %(cause)s::bytea FROM open
), charge AS (
    SELECT 1 + count(*) AS n FROM {attempt} a, open h
     WHERE a.job = %(job)s AND a.run = h.run AND a.kind = %(kind)s
), verdict AS (
    SELECT h.*, (SELECT n FROM charge) AS n, EXISTS (SELECT FROM copies WHERE live) AS raced,
           (SELECT n FROM charge) >= COALESCE(CASE WHEN %(kind)s = 'failed' THEN h.max_attempts END,
                                              %(limit)s) AS final
      FROM open h
), requeued AS (
    INSERT INTO workerbee."batch$" ({header}, place, due_at, again, jobs)
    SELECT {header},
           CASE WHEN %(kind)s IN ('died', 'lost') THEN place ELSE nextval('workerbee."place$"') END,
           CASE WHEN %(kind)s NOT IN ('died', 'lost') THEN now() + make_interval(secs =>
               LEAST(%(max_backoff)s, %(backoff)s * 2 ^ LEAST(n - 1, 100)) * (0.5 + random() / 2)) END,
           true, ARRAY[%(job)s::bigint]
      FROM verdict WHERE NOT final AND NOT raced
    RETURNING id
), ended AS (
    INSERT INTO {outcome} (job, run, status, codec, output, payload, mac, bee, duration, cause)
    SELECT %(job)s, run, 'failed', %(codec)s, %(output)s, %(payload)s, %(mac)s, %(bee)s, %(duration)s, %(cause)s::bytea
      FROM verdict WHERE final AND NOT raced
    ON CONFLICT DO NOTHING RETURNING job
), heirs AS (
    -- A live copy becomes the job's only execution; from the copy of a dead bee the job is taken.
    UPDATE workerbee."batch$" b
       SET copy_of = NULL,
           jobs = CASE WHEN c.live THEN b.jobs ELSE array_remove(b.jobs, %(job)s::bigint) END,
           started = b.started - (NOT c.live AND array_position(b.jobs, %(job)s::bigint) <= b.started)::integer
      FROM copies c WHERE b.id = c.id
), removed AS (
    UPDATE workerbee."batch$" b
       SET jobs = array_remove(b.jobs, %(job)s::bigint),
           started = b.started - (array_position(b.jobs, %(job)s::bigint) <= b.started)::integer
      FROM held h WHERE b.id = h.id
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, failed, retried, lost)
    SELECT {number}, %(writer)s, (SELECT count(*) FROM ended),
           CASE WHEN %(kind)s <> 'lost' THEN n ELSE 0 END, CASE WHEN %(kind)s = 'lost' THEN n ELSE 0 END
      FROM open, (SELECT count(*) AS n FROM requeued) r
    ON CONFLICT (jobset, writer)
    DO UPDATE SET failed = c.failed + excluded.failed, retried = c.retried + excluded.retried,
                  lost = c.lost + excluded.lost
), hinted AS (
    SELECT pg_notify('workerbee$done$' || {number}, job::text) FROM ended
)
SELECT CASE WHEN EXISTS (SELECT FROM stale) THEN 'stale'
            WHEN NOT EXISTS (SELECT FROM held) THEN 'ignored'
            WHEN EXISTS (SELECT FROM ended) THEN 'failed'
            WHEN EXISTS (SELECT FROM requeued) THEN 'retried'
            ELSE 'noted' END,
       (SELECT count(*) FROM hinted), {durably};

-- name: release
-- Give back jobs that have not run: they wait at their old place, and no attempt is counted. A job that another copy
-- still has is left to that copy; a job whose run has ended meanwhile is dropped from the batch. Rows are locked and
-- compared with the snapshot as in `fail`.
WITH members AS MATERIALIZED (
    SELECT %(batch)s::bigint AS id
    UNION
    SELECT id FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NOT NULL AND jobs && %(jobs)s::bigint[]
       AND EXISTS (SELECT FROM {attempt} WHERE job = ANY (%(jobs)s::bigint[]) AND kind = 'copy')
), family AS MATERIALIZED (
    SELECT c.*, c.xmin AS version FROM workerbee."batch$" c
     WHERE c.id = ANY (ARRAY(SELECT id FROM members)) AND c.jobset = {number}
     ORDER BY c.id FOR UPDATE
), stale AS (
    SELECT FROM family f
     WHERE NOT EXISTS (SELECT FROM workerbee."batch$" s WHERE s.id = f.id AND s.xmin = f.version)
), held AS (
    SELECT f.* FROM family f
     WHERE f.id = %(batch)s AND f.bee = %(bee)s AND f.claim = %(claim)s AND NOT EXISTS (SELECT FROM stale)
), copies AS (
    SELECT f.id, u.job FROM family f CROSS JOIN LATERAL unnest(f.jobs) AS u (job), held h
     WHERE f.id <> h.id AND f.run = h.run AND u.job = ANY (h.jobs) AND u.job = ANY (%(jobs)s)
), back AS (
    SELECT array_agg(u.job ORDER BY u.n) FILTER (
               WHERE u.job NOT IN (SELECT job FROM copies)
                 AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL) AS jobs,
           count(*) FILTER (WHERE u.n <= h.started)::integer AS n_started
      FROM held h CROSS JOIN LATERAL unnest(h.jobs) WITH ORDINALITY AS u (job, n)
     WHERE u.job = ANY (%(jobs)s)
), returned AS (
    INSERT INTO workerbee."batch$" ({header}, place, again, jobs)
    SELECT {h.header}, h.place, h.again OR NOT %(untouched)s, b.jobs
      FROM held h, back b WHERE b.jobs IS NOT NULL
    RETURNING id
), heirs AS (
    UPDATE workerbee."batch$" b SET copy_of = NULL WHERE b.id IN (SELECT id FROM copies)
), kept AS (
    UPDATE workerbee."batch$" b
       SET started = b.started - k.n_started,
           jobs = ARRAY(SELECT u.job FROM unnest(b.jobs) WITH ORDINALITY AS u (job, n)
                         WHERE u.job <> ALL (%(jobs)s) ORDER BY u.n)
      FROM held h, back k WHERE b.id = h.id AND NOT h.jobs <@ %(jobs)s::bigint[]
), closed AS (
    DELETE FROM workerbee."batch$" b USING held h WHERE b.id = h.id AND h.jobs <@ %(jobs)s::bigint[]
)
SELECT EXISTS (SELECT FROM stale), (SELECT count(*) FROM returned), pg_notify('workerbee$work', {number}::text);

-- name: held_claims
-- List what a bee holds. So it finds claims whose answer never reached it, and gives them back; otherwise they would be
-- held as long as the bee lives.
SELECT id, claim::text, jobs FROM workerbee."batch$"
 WHERE jobset = {number} AND bee = %(bee)s AND claim IS NOT NULL;

-- name: rescue
-- Put back the work of bees whose lease has lapsed. A bee also counts as gone if its connection has ended and its next
-- heartbeat is overdue. Jobs that had not started go back to their old place together; each job that had started
-- becomes a batch of its own, so that the next loss shows which job it was.
-- Only a bee that was served for two leases without a break may judge, and nobody in the server's first two leases.
-- When the server's clock is set, all leases look lapsed or all heartbeats lie in the future, the judge's own too. Then
-- its next heartbeat starts its service anew, and within the two leases that follow every living bee is heard. A job
-- that has been lost with three bees on three hosts waits for a minute before it is blamed: they may come back. A
-- header that has changed since this statement's snapshot is left for the next time: its holder lives, or somebody has
-- just begun a copy that the snapshot doesn't show.
WITH me AS (
    SELECT FROM workerbee."bee$"
     WHERE incarnation = %(bee)s AND served_since < now() - make_interval(secs => 2 * %(lease)s)
       AND now() BETWEEN seen_at AND seen_at + (lease_until - seen_at) / 2
       AND pg_postmaster_start_time() NOT BETWEEN now() - make_interval(secs => 2 * %(lease)s) AND now()
), silent AS MATERIALIZED (
    SELECT h.*, h.xmin AS version, COALESCE(b.host, '?') AS host,
           b.incarnation IS NOT NULL AND b.given_up_at IS NULL AS vanished
      FROM workerbee."batch$" h LEFT JOIN workerbee."bee$" b ON b.incarnation = h.bee
     WHERE h.jobset = {number} AND h.claim IS NOT NULL AND (h.bee <> %(bee)s OR h.bee IS NULL)
       AND EXISTS (SELECT FROM me)
       AND (b.incarnation IS NULL OR b.lease_until < now()
            OR b.seen_at > now() + {lease}  -- before the clock was set back, and not since
            OR (b.backend IS NOT NULL AND b.seen_at < now() - make_interval(secs => 0.35 * %(lease)s)
                AND NOT EXISTS (SELECT FROM pg_stat_activity a
                                 WHERE a.pid = b.backend
                                   -- Of other users' sessions only the superuser sees more than the pid.
                                   AND COALESCE(a.backend_start, b.backend_start) = b.backend_start)))
     -- No index has it in this order: along the primary key, all headers there are might be read.
     ORDER BY h.id + 0 LIMIT 50 FOR UPDATE OF h SKIP LOCKED
), lapsed AS MATERIALIZED (
    SELECT * FROM silent l WHERE (SELECT s.xmin FROM workerbee."batch$" s WHERE s.id = l.id) = l.version
), elsewhere AS MATERIALIZED (
    SELECT c.run, u.job FROM workerbee."batch$" c CROSS JOIN LATERAL unnest(c.jobs) AS u (job)
     WHERE c.jobset = {number} AND c.claim IS NOT NULL
       AND EXISTS (SELECT FROM lapsed) AND c.id NOT IN (SELECT id FROM lapsed)
), unfinished AS MATERIALIZED (
    SELECT l.id, l.bee, l.host, l.vanished, l.run, u.job, u.n, u.n <= l.started AS begun,
           count(*) FILTER (WHERE u.n <= l.started) OVER (PARTITION BY l.bee) AS n_begun,
           (l.run, u.job) IN (SELECT run, job FROM elsewhere) AS copied
      FROM lapsed l CROSS JOIN LATERAL unnest(l.jobs) WITH ORDINALITY AS u (job, n)
     WHERE u.job IS NOT NULL  -- anybody may have written a header
       AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = l.run) IS NULL
), suspect AS (
    -- Begun by a bee that, as far as anybody can see, had begun nothing else: it may be what ended the bee.
    SELECT u.id, u.job,
           (SELECT count(DISTINCT a.host) FROM {attempt} a
             WHERE a.job = u.job AND a.run = u.run AND a.kind = 'lost' AND a.alone AND a.host <> u.host) AS before
      FROM unfinished u
     WHERE u.begun AND u.vanished AND u.n_begun = 1
       AND NOT EXISTS (SELECT FROM workerbee."batch$" o
                        WHERE o.bee = u.bee AND o.claim IS NOT NULL AND o.started > 0
                          AND o.id NOT IN (SELECT id FROM lapsed))
), deleted AS (
    DELETE FROM workerbee."batch$" b USING lapsed l WHERE b.id = l.id
), heirs AS (
    UPDATE workerbee."batch$" c SET copy_of = NULL
     WHERE c.jobset = {number} AND c.claim IS NOT NULL AND c.copy_of IN (SELECT id FROM lapsed)
       AND c.id NOT IN (SELECT id FROM lapsed)
), waiting AS (
    INSERT INTO workerbee."batch$" ({header}, place, again, jobs)
    SELECT {l.header}, l.place, l.again, array_agg(u.job ORDER BY u.n)
      FROM lapsed l JOIN unfinished u USING (id) WHERE NOT u.begun
     GROUP BY l.id, {l.header}, l.place, l.again
), alone AS (
    INSERT INTO workerbee."batch$" ({header}, place, due_at, again, jobs)
    SELECT DISTINCT ON (u.job, u.run) {l.header}, l.place,
           CASE WHEN s.before >= 2 THEN now() + {return_time} END, true, ARRAY[u.job]
      FROM lapsed l JOIN unfinished u USING (id) LEFT JOIN suspect s USING (id, job)
     WHERE u.begun AND NOT u.copied
    RETURNING id
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host, alone)
    SELECT u.job, u.run, 'lost', COALESCE(u.bee, '00000000-0000-0000-0000-000000000000'), u.host,
           (u.id, u.job) IN (SELECT id, job FROM suspect)
      FROM unfinished u WHERE u.begun
    RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, lost)
    SELECT {number}, %(writer)s, count(*) FROM noted HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET lost = c.lost + excluded.lost
), given_up AS (
    UPDATE workerbee."bee$" SET given_up_at = clock_timestamp()
     WHERE incarnation IN (SELECT incarnation FROM workerbee."bee$"
                            WHERE incarnation IN (SELECT bee FROM unfinished WHERE begun)
                            ORDER BY incarnation FOR UPDATE)
)
SELECT (SELECT count(*) FROM lapsed), (SELECT array_agg(DISTINCT COALESCE(bee::text, '?')) FROM lapsed);

-- name: take_over
-- Put back jobs, at their old place, that another bee holds and has not begun. This is done when nothing is left to
-- claim, and if that bee's mark has stood still for longer than a slice of work takes. Half of the jobs are taken, so
-- that both bees have something to do, or all of them from a bee that seems stuck. No job is run twice: starting and
-- taking over lock the same row, and beyond the mark nothing has begun.
WITH slow AS MATERIALIZED (
    SELECT *, CASE WHEN COALESCE(marked_at, claimed_at) < now() - interval '1 second' THEN started
                   ELSE (started + cardinality(jobs)) / 2 END AS kept
      FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NOT NULL AND bee <> %(bee)s AND started < cardinality(jobs)
       AND COALESCE(marked_at, claimed_at) NOT BETWEEN now() - interval '200 milliseconds' AND now() + {lease}
       AND (%(only)s::integer[] IS NULL OR function = ANY (%(only)s)) AND function <> ALL (%(refused)s)
     ORDER BY COALESCE(marked_at, claimed_at) LIMIT 1 FOR UPDATE SKIP LOCKED
), shortened AS (
    -- The mark too as it was locked: constraints (tests/impossible.sql) are checked on the snapshot's row first.
    UPDATE workerbee."batch$" b SET started = s.started, jobs = s.jobs[:s.kept] FROM slow s WHERE b.id = s.id
)
INSERT INTO workerbee."batch$" ({header}, place, again, jobs)
SELECT {header}, place, again, jobs[kept + 1:] FROM slow
RETURNING cardinality(jobs), set_config('synchronous_commit', 'off', true);

-- name: came_back
-- Take back what was said of a bee that was given up and comes back within a minute: nothing was lost, and no job is
-- blamed for it. If it has just been given up once more, it still hears of that.
WITH excused AS (
    UPDATE {attempt} SET kind = 'away', alone = false
     WHERE bee = %(bee)s AND kind = 'lost' AND error IS NULL AND at > now() - {return_time}
    RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, lost)
    SELECT {number}, %(writer)s, -count(*) FROM excused HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET lost = c.lost + excluded.lost
)
UPDATE workerbee."bee$" b SET given_up_at = NULL
  FROM (SELECT given_up_at FROM workerbee."bee$" WHERE incarnation = %(bee)s) seen
 WHERE b.incarnation = %(bee)s AND b.given_up_at = seen.given_up_at;

-- name: speculate
-- Begin a copy of the job that is expected to take longest, when nothing is left to claim. The job has been held for
-- more than twice the median, and for more than the 95th percentile, of what jobs of its function took. Its header is
-- rewritten without a change, so that a statement with an older snapshot sees that something has happened to it. No
-- copy is made if the header is newer than this statement's own snapshot.
WITH pace AS MATERIALIZED (
    SELECT h.function, h.run,
           (SELECT ARRAY[percentile_cont(0.5) WITHIN GROUP (ORDER BY d.duration),
                         percentile_cont(0.95) WITHIN GROUP (ORDER BY d.duration), count(*)]
              FROM (SELECT job, duration FROM {outcome} WHERE status = 'completed' AND duration BETWEEN 0 AND 1e7
                     ORDER BY job DESC LIMIT 200) d
             -- A subquery for each: a join might read all jobs.
             WHERE (SELECT j.function FROM {job} j WHERE j.id = d.job) = h.function) AS took
      FROM (SELECT DISTINCT function, run FROM workerbee."batch$"
             WHERE jobset = {number} AND claim IS NOT NULL AND started > 0 AND speculate
               AND bee <> %(bee)s
               AND claimed_at < now() - make_interval(secs => 0.05 * started)) h  -- no sooner can one be slow
), copied AS MATERIALIZED (
    SELECT c.run, u.job FROM workerbee."batch$" c CROSS JOIN LATERAL unnest(c.jobs) AS u (job)
     WHERE c.jobset = {number} AND c.claim IS NOT NULL AND c.copy_of IS NOT NULL
), slow AS MATERIALIZED (
    SELECT h.*, h.xmin AS version, s.job
      FROM workerbee."batch$" h JOIN pace p USING (function, run)
     CROSS JOIN LATERAL (
           SELECT u.job FROM unnest(h.jobs[:h.started]) WITH ORDINALITY AS u (job, n)
            WHERE (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = h.run) IS NULL
              AND (h.run, u.job) NOT IN (SELECT run, job FROM copied)
            ORDER BY u.n LIMIT 1) s
     WHERE h.jobset = {number} AND h.claim IS NOT NULL AND h.started > 0 AND h.speculate AND h.copy_of IS NULL AND {here}
       AND h.bee <> %(bee)s AND h.function <> ALL (%(refused)s)
       AND (%(only)s::integer[] IS NULL OR h.function = ANY (%(only)s))
       AND p.took[3] >= 3 AND EXISTS (SELECT FROM workerbee."jobset$" WHERE number = {number} AND paused_at IS NULL)
       AND now() - h.claimed_at > make_interval(secs =>
               h.started * GREATEST(0.05, 2 * p.took[1], p.took[2]))
     ORDER BY h.claimed_at LIMIT 1 FOR UPDATE OF h SKIP LOCKED
), unchanged AS (
    SELECT s.* FROM slow s JOIN workerbee."batch$" b ON b.id = s.id AND b.xmin = s.version
), rewritten AS (
    UPDATE workerbee."batch$" b SET started = b.started FROM unchanged u WHERE b.id = u.id
), copy AS (
    INSERT INTO workerbee."batch$" ({header}, place, again, jobs, bee, claim, claimed_at, started, copy_of)
    SELECT {header}, place, true, ARRAY[job],
           %(bee)s, %(claim)s, now(), 1, id
      FROM unchanged
    RETURNING *
), noted AS (
    INSERT INTO {attempt} (job, run, kind, bee, host)
    SELECT c.jobs[1], c.run, 'copy', %(bee)s, %(host)s FROM copy c
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, speculative)
    SELECT {number}, %(writer)s, 1 FROM copy
    ON CONFLICT (jobset, writer) DO UPDATE SET speculative = c.speculative + 1
)
SELECT h.id, h.function, h.run, h.timeout, h.max_attempts, h.again, true,
       j.id, j.codec, j.input::text, j.payload, j.mac,
       1, 0, true
  FROM copy h JOIN {job} j ON j.id = h.jobs[1];

-- name: overtaken
-- Find the jobs among these that this bee runs in vain, because their run has ended: another copy was first, or
-- somebody has cancelled them. A row without a run names a job whose output somebody wants to see now; if the number is
-- negative, somebody wants to see where the job is.
SELECT g.job, g.run FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS g (job, run)
 WHERE (SELECT o.bee IS DISTINCT FROM %(bee)s FROM {outcome} o WHERE o.job = g.job AND o.run = g.run)
 UNION ALL
SELECT t.job, NULL FROM workerbee."tail$" t
 WHERE t.jobset = {number} AND t.asked_until > now()
   AND t.job = ANY (ARRAY(SELECT job * side FROM unnest(%(jobs)s::bigint[]) AS u (job), (VALUES (1), (-1)) AS s (side)));

-- name: show
-- Show what a running job has printed until now or, under its negative number, where it is.
UPDATE workerbee."tail$"
   SET run = %(run)s::integer, bee = %(bee)s, pushed_at = clock_timestamp(), stdout = decode(%(stdout)s, 'hex'),
       stderr = decode(%(stderr)s, 'hex'), stdout_size = %(stdout_size)s, stderr_size = %(stderr_size)s
 WHERE jobset = {number} AND job = %(job)s::bigint AND asked_until > now() AND {here}
RETURNING set_config('synchronous_commit', 'off', true);

-- name: get_functions
SELECT number, digest, name, codec, body, python, mac FROM {function}
 WHERE number = ANY (%(numbers)s::integer[]) AND {here};

-- name: functions_named
-- Find the functions of a name, for which --function may stand in.
SELECT number FROM {function} WHERE name = %(name)s AND {here};
