-- What a client says of one jobset: functions, jobs, cancellations, and reading results.

-- name: put_functions
-- Each once a jobset, by content.
WITH given AS (
    SELECT * FROM unnest(%(digests)s::bytea[], %(identities)s::bytea[], %(names)s::text[], %(codecs)s::text[],
                         %(bodies)s::bytea[], %(pythons)s::text[], %(macs)s::bytea[])
           AS g (digest, identity, name, codec, body, python, mac)
), put AS (
    INSERT INTO {function} (digest, identity, name, codec, body, python, mac)
    SELECT digest, identity, name, codec, body, python, mac FROM given WHERE {here} ORDER BY digest
    ON CONFLICT (digest) DO NOTHING RETURNING digest, number
)
SELECT digest, number FROM put UNION ALL SELECT f.digest, f.number FROM {function} f JOIN given USING (digest);

-- name: functions_stored
SELECT digest, number FROM {function} WHERE digest = ANY (%(digests)s::bytea[]) AND {here};

-- name: put_adoption
-- That a function counts as those with another identity: the one row here that may change, by its user's word.
INSERT INTO {function} (digest, identity, name, codec, body, python, mac)
SELECT %(digest)s, %(identity)s, %(name)s, %(codec)s, %(body)s, %(python)s, %(mac)s WHERE {here}
ON CONFLICT (digest) DO UPDATE SET identity = excluded.identity, body = excluded.body, mac = excluded.mac;

-- name: versions
SELECT number, digest, identity, name, codec, python FROM {function} WHERE name = %(name)s AND {here}
 ORDER BY number;

-- name: get_function
SELECT digest, name, codec, body, python, mac FROM {function} WHERE number = %(number)s AND {here};

-- name: small_functions
SELECT number FROM {function} WHERE codec !~ ';parts=' AND {here} ORDER BY octet_length(body), number LIMIT 1000;

-- name: waiting_functions
-- Of which of these functions jobs wait.
SELECT DISTINCT function FROM workerbee."batch$"
 WHERE jobset = {number} AND claim IS NULL AND function = ANY (%(functions)s);

-- name: hand_over
-- Jobs that wait are run by another function from now on, and as soon as others of their priority. Whoever holds a
-- header now has claimed it, or is about to change it.
WITH waiting AS MATERIALIZED (
    SELECT h.id, s.runs FROM workerbee."batch$" h
      JOIN unnest(%(calls)s::integer[], %(stand_ins)s::integer[]) AS s (calls, runs) ON s.calls = h.function
     WHERE h.jobset = {number} AND h.claim IS NULL AND {here}
     ORDER BY h.id FOR UPDATE OF h SKIP LOCKED
), handed AS (
    UPDATE workerbee."batch$" b SET function = w.runs FROM waiting w WHERE b.id = w.id
    RETURNING cardinality(b.jobs) AS n
)
SELECT COALESCE(sum(n), 0), pg_notify('workerbee$work', {number}::text), {durably} FROM handed;

-- name: reprioritise
-- Jobs that wait are put last, or back in their place; how many are last now.
WITH waiting AS MATERIALIZED (
    SELECT id, priority, cardinality(jobs) AS n FROM workerbee."batch$"
     WHERE jobset = {number} AND claim IS NULL AND function = ANY (%(functions)s) AND {here}
     ORDER BY id FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE workerbee."batch$" b SET priority = b.priority + %(by)s
      FROM waiting w WHERE b.id = w.id AND (w.priority >= %(limit)s) = (%(by)s < 0)
)
SELECT COALESCE(sum(n) FILTER (WHERE priority < %(limit)s OR %(by)s < 0), 0), {durably} FROM waiting;

-- name: left_aside
-- How many results there are of other versions of a function. There is no index for it, so nobody waits for this.
SELECT count(*) FROM {outcome} o JOIN {job} j ON j.id = o.job
 WHERE o.status = 'completed' AND j.function = ANY (ARRAY(
       SELECT number FROM {function} WHERE name = %(name)s AND identity <> %(identity)s));

-- name: add
-- Jobs and the batches that bring them, in one statement. Whoever adds the same call twice, or again
-- after a COMMIT whose answer was lost, adds nothing: only ids that are returned were inserted now.
-- Sorted, because two clients that insert the same calls in different orders would deadlock (equal inputs
-- have equal keys, so that one order serves both indexes).
WITH given AS (
    SELECT id::bigint, decode(digest, 'hex') AS digest, decode(key, 'hex') AS key, function::integer,
           codec, input::json, decode(payload, 'hex') AS payload, decode(mac, 'hex') AS mac, lot::integer
      FROM unnest(string_to_array(%(id)s, E'\n'), string_to_array(%(digest)s, E'\n', ''),
                  string_to_array(%(key)s, E'\n', ''), string_to_array(%(function)s, E'\n'),
                  string_to_array(%(codec)s, E'\n'), string_to_array(%(input)s, E'\n', ''),
                  string_to_array(%(payload)s, E'\n', ''), string_to_array(%(mac)s, E'\n', ''),
                  string_to_array(%(lot)s, E'\n'))
           AS g (id, digest, key, function, codec, input, payload, mac, lot)
), unknown AS MATERIALIZED (
    -- What was stored may be gone after a failover or a restore, and its number may be another function's.
    SELECT FROM unnest(%(functions)s::integer[], string_to_array(%(function_digests)s, E'\n')) AS k (number, digest)
     WHERE NOT EXISTS (SELECT FROM {function} f WHERE f.number = k.number AND f.digest = decode(k.digest, 'hex'))
), inserted AS (
    INSERT INTO {job} (id, digest, key, function, codec, input, payload, mac)
    SELECT id, digest, key, function, codec, input, payload, mac FROM given
     WHERE {here} AND NOT EXISTS (SELECT FROM unknown) ORDER BY key, digest, id
    {or_nothing} RETURNING id
), lots AS (
    SELECT g.lot, array_agg(g.id ORDER BY g.id) AS jobs FROM inserted i JOIN given g USING (id) GROUP BY g.lot
), batched AS (
    INSERT INTO workerbee."batch$" ({header}, due_at, jobs)
    SELECT {number}, k.function, 1, k.priority, k.timeout, k.max_attempts, k.speculate, to_timestamp(k.due), l.jobs
      FROM lots l
      JOIN unnest(%(lot_function)s::integer[], %(lot_priority)s::integer[], %(lot_due)s::double precision[],
                  %(lot_timeout)s::double precision[], %(lot_max_attempts)s::integer[], %(lot_speculate)s::boolean[])
           WITH ORDINALITY AS k (function, priority, due, timeout, max_attempts, speculate, lot) USING (lot)
     ORDER BY l.jobs[1]
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, added)
    SELECT {number}, %(writer)s, count(*) FROM inserted HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET added = c.added + excluded.added
)
-- With `whole` it is all or none: dividing by zero is how a query undoes itself.
SELECT ids, 1 / (NOT %(whole)s OR cardinality(ids) = (SELECT count(*) FROM given))::integer,
       CASE WHEN %(hint)s AND cardinality(ids) > 0 THEN pg_notify('workerbee$work', {number}::text)::text END,
       {durably}, EXISTS (SELECT FROM unknown)
  FROM (SELECT ARRAY(SELECT id FROM inserted) AS ids) i;

-- name: skip_ids
-- The next ids come after all that there are.
UPDATE workerbee."jobset$" SET next_id = GREATEST(next_id, COALESCE((SELECT max(id) FROM {job}), 0) + 1)
 WHERE number = {number} AND {here}
RETURNING {durably};

-- name: signatures
SELECT id, mac FROM {job} WHERE id = ANY (%(jobs)s::bigint[]) AND {here};

-- name: same_calls
-- The jobs that these calls are already, and how each one's latest run stands (NULL: not ended).
SELECT encode(j.digest, 'hex'), j.id, COALESCE(r.run, 1), o.status::text, j.function
  FROM {job} j
  LEFT JOIN LATERAL (SELECT max(run) AS run FROM {run} WHERE job = j.id) r ON true
  LEFT JOIN {outcome} o ON o.job = j.id AND o.run = COALESCE(r.run, 1)
 WHERE j.digest = ANY (%(digests)s) AND {here};

-- name: taken_inputs
-- Which of these inputs are in the jobset already, by the whole or by their 'id'.
SELECT encode(digest, 'hex'), encode(key, 'hex'), id FROM {job}
 WHERE (digest = ANY (%(digests)s) OR key = ANY (%(keys)s)) AND {here};

-- name: put_parts
-- A large value travels ahead of its row in parts, as many at once as a part of a lease allows: they are cut here, all
-- of one size, so that also who has a slower link can read them one by one.
INSERT INTO {part} (job, run, token, seq, data)
SELECT %(job)s, %(run)s, %(token)s, %(first)s::integer + n,
       substring(d.data FROM n * %(size)s::integer + 1 FOR %(size)s::integer)
  FROM (SELECT %(data)s::bytea AS data) d
 CROSS JOIN LATERAL generate_series(0, (octet_length(d.data) - 1) / %(size)s::integer) AS n
 WHERE {here}
ON CONFLICT DO NOTHING;

-- name: get_parts
SELECT data FROM {part}
 WHERE job = %(job)s AND run = %(run)s AND token = %(token)s AND seq BETWEEN %(first)s AND %(last)s
 ORDER BY seq;

-- name: reopen
-- A new run of jobs that had failed or been cancelled. The primary key of (job, run) lets one of many
-- callers open it. It runs the code of another function where one stands in for the job's own.
WITH opened AS (
    INSERT INTO {run} (job, run)
    SELECT a.job, a.run + 1 FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS a (job, run)
     WHERE (SELECT o.status <> 'completed' FROM {outcome} o WHERE o.job = a.job AND o.run = a.run) AND {here}
     ORDER BY a.job
    ON CONFLICT DO NOTHING RETURNING job, run
), batched AS (
    INSERT INTO workerbee."batch$" ({header}, due_at, jobs)
    SELECT {number}, o.function, o.run, %(priority)s, %(timeout)s, %(max_attempts)s, %(speculate)s,
           to_timestamp(%(due)s), array_agg(o.job ORDER BY o.job)
      FROM (SELECT o.*, row_number() OVER (PARTITION BY o.function, o.run ORDER BY o.job) - 1 AS n
              FROM (SELECT o.*, COALESCE(s.runs, j.function) AS function
                      FROM opened o JOIN {job} j ON j.id = o.job
                      LEFT JOIN unnest(%(calls)s::integer[], %(stand_ins)s::integer[]) AS s (calls, runs)
                             ON s.calls = j.function) o) o
     GROUP BY function, run, n / %(size)s ORDER BY min(o.job)
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, reopened, revived)
    SELECT {number}, %(writer)s, count(*),
           count(*) FILTER (WHERE (SELECT e.status FROM {outcome} e WHERE e.job = o.job AND e.run = o.run - 1)
                                  = 'cancelled')
      FROM opened o HAVING count(*) > 0
    ON CONFLICT (jobset, writer)
    DO UPDATE SET reopened = c.reopened + excluded.reopened, revived = c.revived + excluded.revived
)
SELECT count(*), pg_notify('workerbee$work', {number}::text), {durably} FROM opened;

-- name: finished
-- Asked by id, never by what came last: a commit that is late can't be missed.
SELECT job, run, status::text, codec, output::text, payload, mac FROM {outcome}
 WHERE job = ANY (%(jobs)s::bigint[]) AND {here};

-- name: ended
-- Which of the jobs in these ranges (first, last, run) have ended: a probe of the index a range, however many wait in it.
SELECT e.job
  FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[], %(runs)s::integer[]) AS r (first, last, run)
 CROSS JOIN LATERAL (SELECT o.job FROM {outcome} o
                      WHERE o.job BETWEEN r.first AND r.last AND o.run = r.run
                      ORDER BY o.job LIMIT %(n)s) e
 LIMIT %(n)s;

-- name: lost
-- Which of these runs have neither ended nor stand in a header: somebody has deleted rows, or the server has lost its
-- last commits. Both are changed by one statement, so that it is never so for a moment.
WITH headers AS MATERIALIZED (
    SELECT n.run, n.jobs
      FROM (SELECT run, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL
            UNION ALL
            SELECT run, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NOT NULL
            UNION ALL
            SELECT run, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL) n
     WHERE n.jobs[1] <= %(last)s AND n.jobs[cardinality(n.jobs)] >= %(first)s
)
SELECT a.job, a.run FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS a (job, run)
 WHERE (SELECT o.run FROM {outcome} o WHERE o.job = a.job AND o.run = a.run) IS NULL
   AND NOT EXISTS (SELECT FROM headers h WHERE h.run = a.run AND a.job = ANY (h.jobs)) AND {here};

-- name: begun
-- Jobs that may have started, for futures that are to say "running".
SELECT u.job, h.run FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
 WHERE h.jobset = {number} AND h.claim IS NOT NULL;

-- name: cancel
-- The runs of jobs whose ids lie from `firsts` to `lasts`, so that a million of neighbours are quickly said.
-- One statement: between two, somebody could see the cancellation and submit the job again, or a bee start it.
-- A job is cancelled as part of the header that it stands in, under the row's lock, which makes cancelling and
-- starting take turns: beyond the mark `started` nothing has begun, and what is cancelled there never runs. With
-- `running` what has begun ends as well; its holder sees with one of its next looks that it works in vain.
-- A header that has changed since this statement's snapshot was split, or its jobs stand in another by now: those
-- are undecided, and to be asked for again. Headers are locked before outcomes are written, and both in order.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[], %(runs)s::integer[]) AS a (first, last, run)
), near AS MATERIALIZED (
    -- Of this jobset alone, by each of its indexes: others may have millions of headers.
    SELECT n.id
      FROM (SELECT id, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NULL
            UNION ALL
            SELECT id, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND due_at IS NOT NULL
            UNION ALL
            SELECT id, jobs FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL) n
     -- The jobs of a header are in the order of their ids.
     WHERE n.jobs[1] <= %(last)s AND n.jobs[cardinality(n.jobs)] >= %(first)s AND {here}
       AND EXISTS (SELECT FROM asked a WHERE n.jobs[1] <= a.last AND n.jobs[cardinality(n.jobs)] >= a.first)
), hit AS MATERIALIZED (
    SELECT h.*, h.xmin AS version FROM workerbee."batch$" h
     WHERE h.id = ANY (ARRAY(SELECT id FROM near)) AND h.copy_of IS NULL
     ORDER BY h.id FOR UPDATE
), fresh AS MATERIALIZED (
    SELECT h.* FROM hit h JOIN workerbee."batch$" s ON s.id = h.id AND s.xmin = h.version
), named AS MATERIALIZED (
    SELECT p.id, p.run, u.job, u.n > p.started AS unbegun
      FROM (SELECT f.*, a.first, a.last FROM fresh f JOIN asked a
                ON a.run = f.run AND f.jobs[1] <= a.last AND f.jobs[cardinality(f.jobs)] >= a.first OFFSET 0) p
     CROSS JOIN LATERAL unnest(p.jobs) WITH ORDINALITY AS u (job, n)
     WHERE u.job BETWEEN p.first AND p.last
), outcomes AS (
    INSERT INTO {outcome} (job, run, status)
    SELECT job, run, 'cancelled' FROM named WHERE unbegun OR %(running)s ORDER BY job, run
    {or_nothing} RETURNING job
), shorter AS MATERIALIZED (
    SELECT f.id, CASE WHEN t.n = cardinality(f.jobs) - f.started THEN f.jobs[:f.started]
                      ELSE ARRAY(SELECT u.job FROM unnest(f.jobs) WITH ORDINALITY AS u (job, n)
                                  WHERE u.n <= f.started OR u.job NOT IN (SELECT job FROM named WHERE run = f.run)
                                  ORDER BY u.n) END AS jobs
      FROM fresh f JOIN (SELECT id, count(*) AS n FROM named WHERE unbegun GROUP BY id) t USING (id)
), emptied AS (
    DELETE FROM workerbee."batch$" b USING shorter s WHERE b.id = s.id AND s.jobs = '{{}}' AND b.claim IS NULL
), shortened AS (
    UPDATE workerbee."batch$" b SET jobs = s.jobs
      FROM shorter s WHERE b.id = s.id AND NOT (s.jobs = '{{}}' AND b.claim IS NULL)
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, cancelled)
    SELECT {number}, %(writer)s, count(*) FROM outcomes HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET cancelled = c.cancelled + excluded.cancelled
), hinted AS (
    SELECT pg_notify('workerbee$done$' || {number}, string_agg(job::text, ' '))
      FROM (SELECT job FROM outcomes LIMIT 301) o HAVING count(*) BETWEEN 1 AND 300
), undecided AS MATERIALIZED (
    SELECT u.job, a.run FROM asked a CROSS JOIN LATERAL generate_series(a.first, a.last) AS u (job)
     WHERE (SELECT count(*) FROM named) < %(n)s
       AND (u.job, a.run) NOT IN (SELECT job, run FROM named)
       AND (SELECT o.run FROM {outcome} o WHERE o.job = u.job AND o.run = a.run) IS NULL
)
-- Which they are isn't said where it is all of them.
SELECT CASE WHEN (SELECT count(*) FROM outcomes) < %(n)s THEN ARRAY(SELECT job FROM outcomes) END,
       ARRAY(SELECT job FROM undecided), ARRAY(SELECT run FROM undecided), (SELECT count(*) FROM hinted), {durably};

-- name: refused
-- Functions whose jobs wait while all the bees that are there have refused them, or some have and none holds anything
-- of this jobset; if no bee is there, those that were refused before.
WITH there AS (
    SELECT incarnation FROM workerbee."bee$"
     WHERE (jobset = {number} OR jobset IS NULL) AND lease_until > now() - {idle_lease}
), waiting AS (
    SELECT DISTINCT function FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND {here}
), said AS (
    SELECT s.bee, s.host, r.key::integer AS function, r.value AS reason
      FROM workerbee."service$" s CROSS JOIN LATERAL jsonb_each_text(s.refuses) r WHERE s.jobset = {number}
), first AS (
    SELECT f.number, f.name, count(t.incarnation) AS n,
           COALESCE(min(ARRAY[s.host, s.reason]) FILTER (WHERE t.incarnation IS NOT NULL),
                    min(ARRAY[s.host, s.reason])) AS words
      FROM waiting w JOIN {function} f ON f.number = w.function JOIN said s ON s.function = w.function
      LEFT JOIN there t ON t.incarnation = s.bee
     GROUP BY f.number, f.name
)
SELECT name, n, words[1], words[2] FROM first
 WHERE n = (SELECT count(*) FROM there)
    OR (n > 0 AND NOT EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL))
 ORDER BY number;

-- name: results
-- A page of what is stored, in the order of submission, of about so many bytes (of a compressed value, those that it
-- takes). Jobs, outcomes and runs are read side by side, all from the same id on.
SELECT id, function, codec, input::text, payload, run, status, end_codec, output::text, end_payload, mac
  FROM (SELECT p.*, sum(COALESCE(pg_column_size(input), 0) + COALESCE(pg_column_size(payload), 0)
                        + COALESCE(pg_column_size(output), 0) + COALESCE(pg_column_size(end_payload), 0))
                    OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
          FROM (SELECT j.id, j.function, j.codec, j.input, j.payload, o.run, o.status::text AS status,
                       o.codec AS end_codec, o.output, o.payload AS end_payload, encode(o.mac, 'hex') AS mac
                  FROM {job} j
                  LEFT JOIN {outcome} o ON o.job = j.id AND o.job > %(after)s
                       AND NOT EXISTS (SELECT FROM {run} r WHERE r.job = o.job AND r.job > %(after)s AND r.run > o.run)
                 WHERE j.id > %(after)s AND {here}
                   AND (%(functions)s::integer[] IS NULL OR j.function = ANY (%(functions)s))
                 ORDER BY j.id LIMIT %(n)s) p) page
 WHERE before IS NULL OR before < %(bytes)s
 ORDER BY id;

-- name: ended_badly
-- The next latest runs by job that failed or were cancelled, of these functions' jobs: what a retry starts anew. Each
-- status is said as a range, so that only the index of such runs has them in this order.
SELECT b.job, b.run FROM (VALUES ('failed'::workerbee."status$"), ('cancelled')) s (status) CROSS JOIN LATERAL (
       SELECT o.job, o.run FROM {outcome} o
        WHERE {here} AND o.status BETWEEN s.status AND s.status AND o.status <> 'completed' AND o.job > %(after)s
          AND (%(functions)s::integer[] IS NULL
               OR (SELECT j.function FROM {job} j WHERE j.id = o.job) = ANY (%(functions)s))
          AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
        ORDER BY o.status, o.job LIMIT %(n)s) b
 ORDER BY b.job LIMIT %(n)s;

-- name: open_runs
-- What waits or runs of these functions' jobs, by the next headers.
WITH headers AS MATERIALIZED (
    SELECT id, function, priority FROM workerbee."batch$"
     WHERE jobset = {number} AND {here} AND claim IS NULL AND due_at IS NULL
     UNION ALL
    SELECT id, function, priority FROM workerbee."batch$"
     WHERE jobset = {number} AND {here} AND claim IS NULL AND due_at IS NOT NULL
     UNION ALL
    SELECT id, function, priority FROM workerbee."batch$" WHERE jobset = {number} AND {here} AND claim IS NOT NULL
), page AS (
    SELECT h.id FROM headers h
     WHERE h.id > %(after)s AND h.priority < %(below)s
       AND (%(functions)s::integer[] IS NULL OR h.function = ANY (%(functions)s))
     ORDER BY h.id LIMIT %(n)s
)
SELECT b.id, b.run, b.jobs FROM workerbee."batch$" b WHERE b.id = ANY (ARRAY(SELECT id FROM page)) ORDER BY b.id;
