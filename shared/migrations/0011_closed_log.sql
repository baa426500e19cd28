-- The parts of the change log are as closed as the whole: each is a table of its own, to which the application role would have
-- the rights that every new table gets.
CREATE OR REPLACE FUNCTION keep_changes(keep interval DEFAULT '35 days') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE week timestamptz; part text; old record;
BEGIN
    FOR week IN SELECT generate_series(date_trunc('week', now(), 'UTC'), now() + interval '14 days', interval '7 days') LOOP
        part := 'changes_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF changes FOR VALUES FROM (%L) TO (%L)', part, week, week + interval '7 days');
            EXECUTE format('REVOKE ALL ON %I FROM %I', part, current_schema || '_app');
        END IF;
    END LOOP;
    FOR old IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'changes'::regclass
                 AND to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH') + interval '7 days' < now() - keep LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
END $$;

DO $$ BEGIN
    EXECUTE (SELECT format('REVOKE ALL ON %s FROM %I', string_agg(inhrelid::regclass::text, ', '), current_schema || '_app')
             FROM pg_inherits WHERE inhparent = 'changes'::regclass);
END $$;

-- What is said of a table that no tenant owns is true of it.
UPDATE shared_tables SET reason = 'the change log of all tenants; closed to the application role' WHERE name = 'changes';
UPDATE shared_tables SET reason = 'changes on their way to a reaction, of all tenants; read by the kit''s consumer and by no door'
    WHERE name IN ('held', 'parked_changes', 'undecodable');
UPDATE shared_tables SET reason = 'answers to repeated requests, sealed with the caller''s own Idempotency-Key' WHERE name = 'idempotency';
SELECT shared_table('migrations', 'names and checksums of the migrations that were applied');
