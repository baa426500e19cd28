-- The application role writes the log through its tables alone: it makes no record by hand, and does not say how long the log is kept.
REVOKE EXECUTE ON FUNCTION append_change(text, text, text, jsonb, jsonb), log_change() FROM PUBLIC;

DROP FUNCTION keep_changes(interval);
CREATE FUNCTION keep_changes() RETURNS void
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
                 AND to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH') + interval '7 days' < now() - interval '35 days' LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
END $$;
