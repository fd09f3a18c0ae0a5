-- What the rooms around the engine ask of it: who the bees are and what became of them, how counters went over time,
-- why jobs failed, what they printed, and how to pause. Each statement is quick, however many rows there are; the
-- jobsets' own tables follow in portions (schema.py), which `layout` counts.

-- Programs of the former version would go on, and know nothing of pauses. What they leave out, or change, refuses them.
CREATE FUNCTION workerbee."former_bee$"() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE =
        'the schema workerbee in this database is version 2 by now, and this bee is of a former version: '
        'upgrade workerbee-executor in its environment and start it again; nothing is lost';
END $body$;
CREATE FUNCTION workerbee."former_client$"() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '28000', MESSAGE =
        'the schema workerbee in this database is version 2 by now, and this program is of a former version: '
        'upgrade workerbee-executor in its environment and start it again; what it has stored is there';
END $body$;

-- An error in one line, whatever its record is: what isn't Unicode in it is shown as it stands there.
CREATE FUNCTION workerbee."said$"(record json) RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog AS $body$
SELECT CASE WHEN record::text ~ '\\u(0000|[dD][89aAbB]..(?!\\u[dD][c-fC-F]))|(?<!\\u[dD][89aAbB]..)\\u[dD][c-fC-F]'
            THEN left(record::text, 500)
            ELSE translate(left(concat_ws(': ', record ->> 'type', record ->> 'message'), 500), E'\r\n\t', '   ') END
$body$;

ALTER TABLE workerbee."jobset$" RENAME COLUMN next_job TO next_id;
ALTER TABLE workerbee."jobset$"
    ADD COLUMN next_job      bigint,                      -- who changes it is of a former version
    ADD COLUMN layout        integer NOT NULL DEFAULT 1,  -- the version of the jobset's own tables
    ADD COLUMN added_at      timestamptz,                 -- when ids were last taken for jobs
    ADD COLUMN paused_at     timestamptz,
    ADD COLUMN paused_by     text,
    ADD COLUMN paused_why    text,
    ADD COLUMN maker_at      timestamptz,                 -- who is to add the first jobs, and when it said so
    ADD COLUMN maker_host    text,
    ADD COLUMN maker_pid     integer,
    ADD COLUMN maker_backend integer,                     -- its server process (NULL behind a pooler)
    ADD COLUMN maker_backend_start timestamptz;
CREATE TRIGGER "former$" BEFORE UPDATE OF next_job ON workerbee."jobset$"
    FOR EACH STATEMENT EXECUTE FUNCTION workerbee."former_client$"();

-- Until now the maker of a jobset was a bee without runners.
UPDATE workerbee."jobset$" j
   SET maker_at = b.seen_at, maker_host = b.host, maker_pid = b.pid, maker_backend = b.backend,
       maker_backend_start = b.backend_start
  FROM workerbee."bee$" b WHERE b.incarnation = j.uuid AND b.runners = 0;
DELETE FROM workerbee."bee$" WHERE runners = 0;

ALTER TABLE workerbee."bee$"
    ADD COLUMN version text NOT NULL DEFAULT '1',         -- of Workerbee
    ADD COLUMN cpus    integer,                           -- that it may use
    ADD COLUMN launch  text,                              -- what it was started with, and as which of how many
    ADD COLUMN place   integer,
    ADD COLUMN ends_at timestamptz;                       -- when its time is over
ALTER TABLE workerbee."bee$" ALTER COLUMN version SET DEFAULT workerbee."former_bee$"();

-- Bees that have left, or that vanished: apart, so that the living are quickly counted.
CREATE TABLE workerbee."departed$" (
    incarnation uuid PRIMARY KEY,
    jobset      integer,
    host        text NOT NULL,
    pid         integer NOT NULL,
    python      text NOT NULL,
    version     text NOT NULL,
    runners     integer NOT NULL,
    cpus        integer,
    launch      text,
    place       integer,
    started_at  timestamptz NOT NULL,
    left_at     timestamptz NOT NULL,
    last_words  text                                      -- NULL: it vanished
);
CREATE INDEX "departed$left" ON workerbee."departed$" (left_at);

-- What a bee says in one jobset: where its results come from, and what it can't run.
CREATE TABLE workerbee."service$" (
    jobset   integer NOT NULL,
    bee      uuid NOT NULL,
    host     text NOT NULL,
    refuses  jsonb NOT NULL DEFAULT '{}',                 -- why, by the number of the function
    doubts   integer[] NOT NULL DEFAULT '{}',             -- functions of which all that it tried last has failed
    PRIMARY KEY (jobset, bee)
);

ALTER TABLE workerbee."counter$"
    ADD COLUMN revived bigint NOT NULL DEFAULT 0;         -- of the runs reopened, those whose run before was cancelled

-- The counters' sums as they were in some minutes, and the bees that were there. Minutes in which nothing happened
-- have no row.
CREATE TABLE workerbee."history$" (
    jobset      integer NOT NULL,
    minute      timestamptz NOT NULL,
    added       bigint NOT NULL,
    reopened    bigint NOT NULL,
    completed   bigint NOT NULL,
    failed      bigint NOT NULL,
    cancelled   bigint NOT NULL,
    retried     bigint NOT NULL,
    lost        bigint NOT NULL,
    speculative bigint NOT NULL,
    late        bigint NOT NULL,
    bees        integer NOT NULL,
    runners     integer NOT NULL,
    PRIMARY KEY (jobset, minute)
);

-- Who wants to see what a running job prints, and what its bee has pushed of it. Nothing is lost with it.
CREATE UNLOGGED TABLE workerbee."tail$" (
    jobset      integer NOT NULL,
    job         bigint NOT NULL,
    asked_by    text NOT NULL,
    asked_until timestamptz NOT NULL,
    run         integer,
    bee         uuid,
    pushed_at   timestamptz,
    stdout      bytea,
    stderr      bytea,
    stdout_size bigint,                                   -- of all that was printed
    stderr_size bigint,
    PRIMARY KEY (jobset, job)
) WITH (fillfactor = 50);

-- Whoever could use the counters can use what is new.
DO $body$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type, a.is_grantable,
               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
          FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
         WHERE c.oid = 'workerbee."counter$"'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON workerbee."departed$", workerbee."service$", workerbee."history$",'
                       ' workerbee."tail$" TO %s%s', given.privilege_type, given.grantee,
                       CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $body$;

COMMENT ON SCHEMA workerbee IS
    'Workerbee: jobs and what became of them. SELECT * FROM workerbee.<jobset id> shows a jobset; the command '
    '"workerbee drop" deletes one. Names with a $ are the program''s own.';
COMMENT ON TYPE workerbee."status$" IS 'How a run ended.';
COMMENT ON TABLE workerbee."version$" IS 'The migrations that were applied; the highest number is the schema''s version.';
COMMENT ON TABLE workerbee."jobset$" IS
    'The jobsets. Of the one with number N the jobs, functions, later runs, outcomes, attempts, large values and texts '
    'are in job$N, function$N, run$N, outcome$N, attempt$N, part$N and text$N.';
COMMENT ON COLUMN workerbee."jobset$".next_job IS 'A fence: who changes it is of a former version. See next_id.';
COMMENT ON TRIGGER "former$" ON workerbee."jobset$" IS 'Tells programs of a former version that they are to be upgraded.';
COMMENT ON TABLE workerbee."batch$" IS
    'Headers of batches of jobs that wait or run, of all jobsets: the only rows that change while jobs are run.';
COMMENT ON TABLE workerbee."bee$" IS 'The bees that are there, as their last heartbeats left them.';
COMMENT ON TABLE workerbee."departed$" IS 'Bees that have left or vanished in the last 7 days, with their last words.';
COMMENT ON TABLE workerbee."service$" IS 'What each bee said in each jobset: its host, and the functions that it can''t run.';
COMMENT ON TABLE workerbee."counter$" IS
    'What happened in each jobset, a row a writer; the sum counts. Rows of those who have left are added up in one.';
COMMENT ON TABLE workerbee."history$" IS
    'The sums of the counters over time: each minute for a day, each ten minutes for a week, each hour after that.';
COMMENT ON TABLE workerbee."tail$" IS 'Who follows what a running job prints, and the end of what it has printed.';
COMMENT ON SEQUENCE workerbee."place$" IS 'The order in which batches wait.';
COMMENT ON FUNCTION workerbee."former_bee$"() IS 'Tells bees of a former version that they are to be upgraded.';
COMMENT ON FUNCTION workerbee."former_client$"() IS 'Tells clients of a former version that they are to be upgraded.';
COMMENT ON FUNCTION workerbee."said$"(json) IS 'An error record in one line.';
COMMENT ON SEQUENCE workerbee."jobset$_number_seq" IS 'The numbers of jobsets.';
COMMENT ON SEQUENCE workerbee."batch$_id_seq" IS 'The ids of batches.';
COMMENT ON INDEX workerbee."version$_pkey" IS 'Each migration is applied once.';
COMMENT ON INDEX workerbee."jobset$_pkey" IS 'Jobsets by number.';
COMMENT ON INDEX workerbee."jobset$_uuid_key" IS 'Jobsets by UUID.';
COMMENT ON INDEX workerbee."jobset$id" IS 'One living jobset has an id.';
COMMENT ON INDEX workerbee."batch$_pkey" IS 'Batches by id.';
COMMENT ON INDEX workerbee."batch$ready" IS 'What can be claimed at once, in its order.';
COMMENT ON INDEX workerbee."batch$due" IS 'What waits for its time.';
COMMENT ON INDEX workerbee."batch$held" IS 'What bees hold.';
COMMENT ON INDEX workerbee."bee$_pkey" IS 'Bees by incarnation.';
COMMENT ON INDEX workerbee."departed$_pkey" IS 'Departed bees by incarnation.';
COMMENT ON INDEX workerbee."departed$left" IS 'Departed bees by when they left.';
COMMENT ON INDEX workerbee."service$_pkey" IS 'What a bee said in a jobset.';
COMMENT ON INDEX workerbee."counter$_pkey" IS 'A row a jobset and writer.';
COMMENT ON INDEX workerbee."history$_pkey" IS 'A row a jobset and minute.';
COMMENT ON INDEX workerbee."tail$_pkey" IS 'A row a job that is followed.';
