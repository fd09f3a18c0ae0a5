-- Rows that can't be, for databases of tests: there the tables refuse them, whoever writes. In production they
-- don't, because PostgreSQL would read these constraints anew for each statement that inserts or changes one.
CREATE FUNCTION public.refuse_impossible_rows() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT c.oid::regclass AS "table", r.rule
          FROM pg_event_trigger_ddl_commands() d
          JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
          JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'workerbee'
          JOIN (VALUES
                ('batch', 'run > 0'),
                ('batch', 'timeout > 0'),
                ('batch', 'max_attempts > 0'),
                ('batch', '(bee IS NULL) = (claim IS NULL) AND (bee IS NULL) = (claimed_at IS NULL)'),
                ('batch', 'started BETWEEN 0 AND cardinality(jobs)'),
                ('batch', 'bee IS NOT NULL OR (started = 0 AND copy_of IS NULL AND cardinality(jobs) > 0)'),
                ('job', $rule$split_part(codec, ';', 1) IN ('json', 'json_call', 'pickle', 'parts', 'memory', 'blob')$rule$),
                ('outcome', $rule$(status = 'completed') <= (codec IS NOT NULL)$rule$),
                ('outcome', $rule$(status = 'cancelled') <= (codec IS NULL)$rule$)
               ) r (kind, rule) ON c.relkind = 'r' AND split_part(c.relname, '$', 1) = r.kind
    LOOP
        EXECUTE format('ALTER TABLE %s ADD CHECK (%s)', made."table", made.rule);
    END LOOP;
END
$$;
CREATE EVENT TRIGGER refuse_impossible_rows ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION public.refuse_impossible_rows();
