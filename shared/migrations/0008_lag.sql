-- How far behind this service's part of the bus is, and for how long.

CREATE TABLE heard (
    source text PRIMARY KEY,
    at timestamptz NOT NULL
) WITH (fillfactor = 50);
SELECT shared_table('heard', 'kept by the kit; names of services');
COMMENT ON TABLE heard IS 'When the newest heads that came from each source were announced there.';

-- Every announcement says where the write-ahead log was: so the place of the slot in it has a time.
CREATE OR REPLACE FUNCTION announce_heads() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    since xid8;
    before_this xid8 := pg_snapshot_xmin(pg_current_snapshot());
    here pg_lsn := pg_current_wal_lsn();
    chunk jsonb;
    sent int := 0;
BEGIN
    PERFORM lock_streams('{global:heads}');
    SELECT until INTO since FROM heads_sent;
    IF since >= before_this THEN RETURN 0; END IF;
    FOR chunk IN
        WITH advanced AS (
            SELECT c.stream, max(c.seq) AS seq, row_number() OVER (ORDER BY c.stream) / 1000 AS part
            FROM changes c WHERE c.xid >= since AND c.xid < before_this AND c.stream <> 'global:heads' AND NOT c.again
            GROUP BY c.stream)
        SELECT jsonb_object_agg(stream, seq) FROM advanced GROUP BY part
    LOOP
        PERFORM append_change('global:heads', '_heads', 'insert', NULL, jsonb_build_object('heads', chunk, 'lsn', here));
        sent := sent + 1;
    END LOOP;
    IF sent = 0 THEN
        PERFORM append_change('global:heads', '_heads', 'insert', NULL, jsonb_build_object('heads', '{}'::jsonb, 'lsn', here));
    END IF;
    UPDATE heads_sent SET until = before_this;
    RETURN sent;
END $$;

-- The slot through which this database's changes leave. age: how long what it has not passed on is waiting.
CREATE FUNCTION slot_lag() RETURNS TABLE (name text, active boolean, state text, behind_bytes bigint, age_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT s.slot_name::text, s.active, s.wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint,
        extract(epoch FROM clock_timestamp() - (
            SELECT c.at FROM changes c WHERE c.stream = 'global:heads' AND NOT c.again
                AND (c.payload::json -> 'after' ->> 'lsn')::pg_lsn <= s.confirmed_flush_lsn
            ORDER BY c.seq DESC LIMIT 1))
    FROM pg_replication_slots s WHERE s.database = current_database() AND s.slot_type = 'logical'
    ORDER BY s.confirmed_flush_lsn DESC NULLS LAST LIMIT 1
$$;

-- The change log: how much it holds, how far back it reaches, and how long ago it was last written.
CREATE FUNCTION log_lag() RETURNS TABLE (records bigint, bytes bigint, reaches_back_seconds double precision, age_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT coalesce(sum(pg_stat_get_live_tuples(c.oid)), 0)::bigint, coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint,
        extract(epoch FROM clock_timestamp() - (SELECT h.at FROM changes h WHERE h.stream = 'global:heads' ORDER BY h.seq LIMIT 1)),
        extract(epoch FROM clock_timestamp() - (SELECT h.at FROM changes h WHERE h.stream = 'global:heads' AND NOT h.again ORDER BY h.seq DESC LIMIT 1))
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'changes'::regclass
$$;
