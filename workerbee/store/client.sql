-- What a client says of one jobset: functions, jobs, cancellations, and reading results.

-- name: put_functions
-- Store functions, each of them once in a jobset: the digest of its content says which it is.
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
-- Note that a function counts as the functions with another identity. This is the one row here that may change, and
-- only by its user's word.
INSERT INTO {function} (digest, identity, name, codec, body, python, mac)
SELECT %(digest)s, %(identity)s, %(name)s, %(codec)s, %(body)s, %(python)s, %(mac)s WHERE {here}
ON CONFLICT (digest) DO UPDATE SET identity = excluded.identity, body = excluded.body, mac = excluded.mac;

-- name: versions
SELECT number, digest, identity, name, codec, python FROM {function} WHERE name = %(name)s AND {here}
 ORDER BY number;

-- name: get_function
SELECT digest, name, codec, body, python, mac FROM {function} WHERE number = %(number)s AND {here};

-- name: places
-- Read where the jobset's large values are. They are removed when it has been marked to be dropped.
SELECT digest, name, codec, body, python, mac FROM {function}
 WHERE codec = 'place' AND {here_or_dropped} ORDER BY number LIMIT 100;

-- name: small_functions
SELECT number FROM {function} WHERE codec !~ ';parts=' AND {here} ORDER BY octet_length(body), number LIMIT 1000;

-- name: waiting_functions
-- Tell which of these functions have jobs that wait.
SELECT DISTINCT function FROM workerbee."batch$"
 WHERE jobset = {number} AND claim IS NULL AND function = ANY (%(functions)s);

-- name: hand_over
-- Have jobs that wait run by another function from now on, in turn with others of their priority. Headers that somebody
-- has locked are passed over: they are being claimed or changed.
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
-- Put jobs that wait behind all others, or back in their place, and count those that are last now.
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
-- Count the results of other versions of a function. No index helps, so nobody may wait for the answer.
SELECT count(*) FROM {outcome} o JOIN {job} j ON j.id = o.job
 WHERE o.status = 'completed' AND j.function = ANY (ARRAY(
       SELECT number FROM {function} WHERE name = %(name)s AND identity <> %(identity)s));

-- name: add
-- Add jobs, and the batches that bring them, in one statement. A call that is there already, also after a COMMIT whose
-- answer was lost, isn't added again: only ids that are returned were inserted now.
-- Rows are sorted, because two clients that insert the same calls in different orders would deadlock. Equal inputs have
-- equal keys, so one order serves both indexes.
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
-- With `whole` all jobs are added or none: the query undoes itself by dividing by zero.
SELECT ids, 1 / (NOT %(whole)s OR cardinality(ids) = (SELECT count(*) FROM given))::integer,
       CASE WHEN %(hint)s AND cardinality(ids) > 0 THEN pg_notify('workerbee$work', {number}::text)::text END,
       {durably}, EXISTS (SELECT FROM unknown)
  FROM (SELECT ARRAY(SELECT id FROM inserted) AS ids) i;

-- name: skip_ids
-- Have the next ids begin after all ids that there are, leaving out those that nobody can have been given.
UPDATE workerbee."jobset$"
   SET next_id = GREATEST(next_id, COALESCE((SELECT max(id) FROM {job} WHERE id < 1::bigint << 62), 0) + 1)
 WHERE number = {number} AND {here}
RETURNING {durably};

-- name: signatures
-- Give what tells whether a job is the one that was meant: after a failover or a restore its id may be another job's.
SELECT id, mac, digest, CASE WHEN mac IS NULL AND codec = 'json' THEN sha256(convert_to(input::text, 'UTF8')) END
  FROM {job} WHERE id = ANY (%(jobs)s::bigint[]) AND {here};

-- name: same_calls
-- Find the jobs of calls that are stored already, each with the status of its latest run (NULL: it hasn't ended).
SELECT encode(j.digest, 'hex'), j.id, COALESCE(r.run, 1), o.status::text, j.function, o.codec
  FROM {job} j
  LEFT JOIN LATERAL (SELECT max(run) AS run FROM {run} WHERE job = j.id) r ON true
  LEFT JOIN {outcome} o ON o.job = j.id AND o.run = COALESCE(r.run, 1)
 WHERE j.digest = ANY (%(digests)s) AND {here};

-- name: taken_inputs
-- Find the inputs that are in the jobset already: the same as a whole, or with the same 'id'.
SELECT encode(digest, 'hex'), encode(key, 'hex'), id FROM {job}
 WHERE (digest = ANY (%(digests)s) OR key = ANY (%(keys)s)) AND {here};

-- name: put_parts
-- Store parts of a large value before the row that refers to them. A statement brings as many bytes as pass within a
-- part of a lease; they are cut here into parts of one size, so that a reader with a slower link can take one at a
-- time. It may commit asynchronously: the row's own commit comes later, and makes the parts durable too.
INSERT INTO {part} (job, run, token, seq, data)
SELECT %(job)s, %(run)s, %(token)s, %(first)s::integer + n,
       substring(d.data FROM n * %(size)s::integer + 1 FOR %(size)s::integer)
  FROM (SELECT %(data)s::bytea AS data) d
 CROSS JOIN LATERAL generate_series(0, (octet_length(d.data) - 1) / %(size)s::integer) AS n
 WHERE {here} AND set_config('synchronous_commit', 'off', true) IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: get_parts
SELECT data FROM {part}
 WHERE job = %(job)s AND run = %(run)s AND token = %(token)s AND seq BETWEEN %(first)s AND %(last)s
 ORDER BY seq;

-- name: values_stored
-- Find the values of which the last part is stored; then the others are too.
SELECT g.token::text FROM unnest(%(tokens)s::uuid[], %(lasts)s::integer[]) AS g (token, last)
 WHERE (SELECT p.seq FROM {part} p
         WHERE p.job = 0 AND p.run = 0 AND p.token = g.token AND p.seq = g.last LIMIT 1) IS NOT NULL;

-- name: sweep_parts
-- Delete parts whose row never came: whoever had begun to store the value was killed, or had to begin again. On a slow
-- link the largest value takes an hour. Parts of functions, and of what calls share, stay: they are known by what is in
-- them, and may be used again.
DELETE FROM {part} WHERE (job, run, token) IN (
    SELECT job, run, token FROM {part} p
     WHERE seq = 1 AND job > 0 AND at < now() - interval '2 hours'
       AND NOT EXISTS (SELECT FROM {job} j WHERE j.id = p.job AND p.run = 0
                          AND j.codec = 'parts' AND position(p.token::text::bytea IN j.payload) > 0)
       AND NOT EXISTS (SELECT FROM {outcome} o WHERE o.job = p.job AND o.run = p.run
                          AND o.codec = 'parts' AND position(p.token::text::bytea IN o.payload) > 0)) AND {here};

-- name: reopen
-- Open a new run of jobs that have failed or were cancelled. The primary key (job, run) lets one of many callers do so.
-- Where another function stands in for the job's own, the run is of that one.
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

-- name: lose
-- Let a completed run whose large value is lost be followed by one that has failed for that. So whoever looks sees it, and
-- a retry, or the same call, runs the job anew. Of all who notice it one records it.
WITH opened AS (
    INSERT INTO {run} (job, run)
    SELECT o.job, o.run + 1 FROM {outcome} o
     WHERE o.job = %(job)s AND o.run = %(run)s AND o.status = 'completed' AND o.codec = 'blob' AND {here}
    ON CONFLICT DO NOTHING RETURNING job, run
), ended AS (
    INSERT INTO {outcome} (job, run, status, codec, output, mac, cause)
    SELECT job, run, 'failed', 'error', %(record)s::json, %(mac)s::bytea, %(cause)s::bytea
      FROM opened
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, completed, failed)
    SELECT {number}, %(writer)s, -1, 1 FROM opened
    ON CONFLICT (jobset, writer) DO UPDATE SET completed = c.completed - 1, failed = c.failed + 1
)
SELECT count(*), {durably} FROM opened;

-- name: lent_results
-- Look at the next jobs by id. Give the last id, and those whose latest run is completed, with its value in a file.
WITH page AS MATERIALIZED (
    SELECT id FROM {job} WHERE id > %(after)s AND {here} ORDER BY id LIMIT %(n)s
)
SELECT max(page.id), array_remove(array_agg(o.job), NULL)
  FROM page LEFT JOIN LATERAL (
       SELECT job FROM {outcome} o
        WHERE o.job = page.id AND o.status = 'completed' AND o.codec = 'blob'
          AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL LIMIT 1) o ON true;

-- name: finished
-- Give the ends of these jobs. They are asked for by id and never by what came last, so a late commit isn't missed.
SELECT job, run, status::text, codec, output::text, payload, mac FROM {outcome}
 WHERE job = ANY (%(jobs)s::bigint[]) AND {here};

-- name: ended
-- Find the jobs in these ranges (first, last, run) that have ended. Each range takes one probe of the index, however
-- many jobs of it wait.
SELECT e.job
  FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[], %(runs)s::integer[]) AS r (first, last, run)
 CROSS JOIN LATERAL (SELECT o.job FROM {outcome} o
                      WHERE o.job BETWEEN r.first AND r.last AND o.run = r.run
                      ORDER BY o.job LIMIT %(n)s) e
 LIMIT %(n)s;

-- name: lost
-- Find the runs that have neither ended nor stand in a header: somebody has deleted rows, or the server has lost its
-- last commits. One statement records an end and changes the header, so that no run looks lost for a moment. Nothing
-- is called lost on a standby, which may only lag behind.
WITH headers AS MATERIALIZED (
    SELECT n.run, n.jobs FROM {batches: run, jobs} n
     WHERE n.jobs[1] <= %(last)s AND n.jobs[cardinality(n.jobs)] >= %(first)s
)
SELECT a.job, a.run FROM unnest(%(jobs)s::bigint[], %(runs)s::integer[]) AS a (job, run)
 WHERE (SELECT o.run FROM {outcome} o WHERE o.job = a.job AND o.run = a.run) IS NULL
   AND NOT EXISTS (SELECT FROM headers h WHERE h.run = a.run AND a.job = ANY (h.jobs)) AND {here}
   AND NOT pg_is_in_recovery();

-- name: give_up
-- Let lost runs (see `lost`) end as failed, so that a retry, or the same call, runs the job anew. What isn't its job's
-- latest run, or has no job, is left: the same call finds the run before, or makes a new job.
WITH given AS (
    SELECT job::bigint, run::integer, record::json, decode(mac, 'hex') AS mac
      FROM unnest(string_to_array(%(jobs)s, E'\n'), string_to_array(%(runs)s, E'\n'),
                  string_to_array(%(records)s, E'\n'), string_to_array(%(macs)s, E'\n')) AS g (job, run, record, mac)
), headers AS MATERIALIZED (
    SELECT n.run, n.jobs FROM {batches: run, jobs} n
     WHERE n.jobs[1] <= %(last)s AND n.jobs[cardinality(n.jobs)] >= %(first)s
), ended AS (
    INSERT INTO {outcome} (job, run, status, codec, output, mac, cause)
    SELECT g.job, g.run, 'failed', 'error', g.record, g.mac, %(cause)s::bytea FROM given g
     WHERE (SELECT j.id FROM {job} j WHERE j.id = g.job) IS NOT NULL AND {here} AND NOT pg_is_in_recovery()
       AND COALESCE((SELECT max(r.run) FROM {run} r WHERE r.job = g.job), 1) = g.run
       AND NOT EXISTS (SELECT FROM headers h WHERE h.run = g.run AND g.job = ANY (h.jobs))
     ORDER BY g.job, g.run
    ON CONFLICT DO NOTHING RETURNING job
), counted AS (
    INSERT INTO workerbee."counter$" AS c (jobset, writer, failed)
    SELECT {number}, %(writer)s, count(*) FROM ended HAVING count(*) > 0
    ON CONFLICT (jobset, writer) DO UPDATE SET failed = c.failed + excluded.failed
)
SELECT count(*), {durably} FROM ended;

-- name: begun
-- List the jobs that may have started, whose futures then say that they are running.
SELECT u.job, h.run FROM workerbee."batch$" h CROSS JOIN LATERAL unnest(h.jobs[1:h.started]) AS u (job)
 WHERE h.jobset = {number} AND h.claim IS NOT NULL;

-- name: cancel
-- Cancel runs of the jobs whose ids lie from each of `firsts` to the same one of `lasts`: a million neighbours are one
-- range. It is one statement, because between two somebody could see the cancellation and submit the job again, or a
-- bee could start it.
-- The job's header is locked, so cancelling and starting take turns: beyond the mark `started` nothing has begun, and
-- what is cancelled there never runs. With `running`, jobs that have begun end as well; with one of its next looks
-- their holder sees that it works in vain.
-- If a header has changed since this statement's snapshot, its jobs may stand in another one by now. They are
-- undecided, and the client asks again. Headers are locked before outcomes are written, and both in their order.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[], %(runs)s::integer[]) AS a (first, last, run)
), near AS MATERIALIZED (
    SELECT n.id FROM {batches: id, jobs} n
     -- The jobs of a header are in the order of their ids.
     WHERE n.jobs[1] <= %(last)s AND n.jobs[cardinality(n.jobs)] >= %(first)s
       AND EXISTS (SELECT FROM asked a WHERE n.jobs[1] <= a.last AND n.jobs[cardinality(n.jobs)] >= a.first)
), hit AS MATERIALIZED (
    -- Anybody may have written a header: what waits has begun nothing, and is nobody's copy.
    SELECT h.id, h.run, h.jobs, h.xmin AS version,
           CASE WHEN h.claim IS NULL THEN 0
                ELSE LEAST(GREATEST(h.started, 0), cardinality(h.jobs)) END AS started
      FROM workerbee."batch$" h
     WHERE h.id = ANY ({headers}) AND h.jobset = {number} AND (h.copy_of IS NULL OR h.claim IS NULL) AND {here}
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
-- If all jobs were cancelled, their ids aren't listed.
SELECT CASE WHEN (SELECT count(*) FROM outcomes) < %(n)s THEN ARRAY(SELECT job FROM outcomes) END,
       ARRAY(SELECT job FROM undecided), ARRAY(SELECT run FROM undecided), (SELECT count(*) FROM hinted), {durably};

-- name: headers
-- List the first and the last job of each header; anybody may have written one that has none.
SELECT jobs[1], jobs[cardinality(jobs)], id FROM {batches: id, jobs} n
 WHERE jobs[1] <= jobs[cardinality(jobs)] AND {here} ORDER BY jobs[1] LIMIT %(n)s;

-- name: refused
-- Find functions whose jobs wait because bees refuse them: all bees that are there do, or some do and no bee holds jobs
-- of this jobset. If no bee is there, these are the functions that were refused before.
WITH there AS (
    SELECT incarnation FROM workerbee."bee$"
     WHERE (jobset = {number} OR jobset IS NULL) AND lease_until > now() - {idle_lease}
), waiting AS (
    SELECT DISTINCT function FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NULL AND {here}
), said AS (
    -- Anybody may have written it: it need not be an object, nor its keys numbers.
    SELECT s.bee, s.host, r.key AS function, r.value AS reason
      FROM workerbee."service$" s
     CROSS JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(s.refuses) WHEN 'object' THEN s.refuses ELSE '{{}}' END) r
     WHERE s.jobset = {number}
), first AS (
    SELECT f.number, f.name, count(t.incarnation) AS n,
           COALESCE(min(ARRAY[s.host, s.reason]) FILTER (WHERE t.incarnation IS NOT NULL),
                    min(ARRAY[s.host, s.reason])) AS words
      FROM waiting w JOIN {function} f ON f.number = w.function JOIN said s ON s.function = w.function::text
      LEFT JOIN there t ON t.incarnation = s.bee
     GROUP BY f.number, f.name
)
SELECT name, n, words[1], words[2] FROM first
 WHERE n = (SELECT count(*) FROM there)
    OR (n > 0 AND NOT EXISTS (SELECT FROM workerbee."batch$" WHERE jobset = {number} AND claim IS NOT NULL))
 ORDER BY number;

-- name: results
-- Give a page of results in the order of submission, of about `bytes` bytes; a compressed value counts as compressed.
-- Jobs, outcomes and runs are read side by side, all from the same id on.
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
-- List the next jobs of these functions whose latest run failed or was cancelled, for a retry. Each status is compared
-- as a range: then only the index of such runs offers this order, and the planner takes it.
SELECT b.job, b.run FROM (VALUES ('failed'::workerbee."status$"), ('cancelled')) s (status) CROSS JOIN LATERAL (
       SELECT o.job, o.run FROM {outcome} o
        WHERE {here} AND o.status BETWEEN s.status AND s.status AND o.status <> 'completed' AND o.job > %(after)s
          AND o.run BETWEEN 1 AND 2147483646  -- others are nobody's, and none could follow
          AND (%(functions)s::integer[] IS NULL
               OR (SELECT j.function FROM {job} j WHERE j.id = o.job) = ANY (%(functions)s))
          AND (SELECT r.run FROM {run} r WHERE r.job = o.job AND r.run > o.run LIMIT 1) IS NULL
        ORDER BY o.status, o.job LIMIT %(n)s) b
 ORDER BY b.job LIMIT %(n)s;

-- name: open_runs
-- List the jobs of these functions that wait or run, by their headers.
WITH headers AS MATERIALIZED (
    SELECT n.id, n.function, n.priority FROM {batches: id, function, priority} n WHERE {here}
), page AS (
    SELECT h.id FROM headers h
     WHERE h.id > %(after)s AND h.priority < %(below)s
       AND (%(functions)s::integer[] IS NULL OR h.function = ANY (%(functions)s))
     ORDER BY h.id LIMIT %(n)s
)
SELECT b.id, b.run, b.jobs FROM workerbee."batch$" b WHERE b.id = ANY (ARRAY(SELECT id FROM page)) ORDER BY b.id;
