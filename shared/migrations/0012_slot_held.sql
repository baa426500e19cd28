-- How much of the write-ahead log that the slot may hold back it holds back: from 0 to 1, where Postgres gives it up. NULL: without bound.
CREATE FUNCTION slot_held() RETURNS double precision LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN s.wal_status = 'lost' THEN 1.0
        ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn) / nullif(greatest(pg_size_bytes(current_setting('max_slot_wal_keep_size')), 0), 0) END
    FROM pg_replication_slots s WHERE s.database = current_database() AND s.slot_type = 'logical'
    ORDER BY s.confirmed_flush_lsn DESC NULLS LAST LIMIT 1
$$;

-- An incarnation has a number that no earlier one had, also one that the backup does not know of: after a second restore from the same
-- backup the next number of the restored row would be one that readers have seen already. So it is the time, unless that stood still.
CREATE OR REPLACE FUNCTION restored(nothing_lost boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    raised bigint;
BEGIN
    PERFORM set_config('app.context', '{"by": "operator"}', true), lock_streams('{global:incarnation}');
    UPDATE incarnation SET identity = database_identity(),
        epoch = CASE WHEN nothing_lost THEN epoch ELSE greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint) END RETURNING epoch INTO raised;
    IF NOT nothing_lost THEN
        UPDATE heads_sent SET until = pg_snapshot_xmin(pg_current_snapshot());
        INSERT INTO restatements (stream, ordered) SELECT stream, true FROM streams ON CONFLICT (stream) DO UPDATE SET ordered = true;
    END IF;
    RETURN raised;
END $$;
