-- A database that was restored is another incarnation of it: its next change takes a number that readers have seen already.

-- Another cluster has another system identifier; one that was recovered from an archive, or promoted, another timeline.
CREATE FUNCTION database_identity() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system() $$;

ALTER TABLE incarnation ADD COLUMN identity text NOT NULL DEFAULT database_identity();
SELECT publish_table('incarnation', stream => 'global:incarnation');
COMMENT ON COLUMN incarnation.identity IS 'Where the rows were written. Another one now: nothing is read or written here until an operator says what happened.';

-- What mesh restored runs, as the schema's owner. Raises the epoch and restates everything: readers start over with this
-- database. nothing_lost: a failover that kept every commit; the database only has a new identity.
CREATE FUNCTION restored(nothing_lost boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    raised bigint;
BEGIN
    PERFORM set_config('app.context', '{"by": "operator"}', true), lock_streams('{global:incarnation}');
    UPDATE incarnation SET identity = database_identity(), epoch = epoch + (NOT nothing_lost)::int RETURNING epoch INTO raised;
    IF NOT nothing_lost THEN
        UPDATE heads_sent SET until = pg_snapshot_xmin(pg_current_snapshot());
        INSERT INTO restatements (stream, ordered) SELECT stream, true FROM streams ON CONFLICT (stream) DO UPDATE SET ordered = true;
    END IF;
    RETURN raised;
END $$;

-- Numbers start anew in a new epoch: what was announced in an old one is not to be waited for.
ALTER TABLE expected ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
