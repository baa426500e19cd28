-- What a restored database has lost is dropped by those who hold copies of it. An incarnation's numbers begin above all that an earlier
-- one can have given out (a stream takes fewer than a million a second), so that whatever has a lower number and is not restated is gone.
CREATE FUNCTION first_number(epoch bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT epoch * 1000000 + 1 $$;

CREATE OR REPLACE FUNCTION restored(nothing_lost boolean DEFAULT false) RETURNS bigint LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    raised bigint;
BEGIN
    PERFORM set_config('app.context', '{"by": "operator"}', true), lock_streams('{global:incarnation}');
    UPDATE incarnation SET identity = database_identity(),
        epoch = CASE WHEN nothing_lost THEN epoch ELSE greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint) END RETURNING epoch INTO raised;
    IF NOT nothing_lost THEN
        UPDATE streams SET seq = greatest(seq, first_number(raised) - 1);
        UPDATE heads_sent SET until = pg_snapshot_xmin(pg_current_snapshot());
        INSERT INTO restatements (stream, ordered) SELECT stream, true FROM streams ON CONFLICT (stream) DO UPDATE SET ordered = true;
    END IF;
    RETURN raised;
END $$;

-- As before, but a stream that this incarnation does not know is restated as an empty one with numbers of this incarnation; and no more
-- than a transaction can do is sent at once: who misses more asks for the rest.
CREATE OR REPLACE FUNCTION send_again(name text, first bigint, last bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    most bigint := least(last, coalesce((SELECT min(seq) FROM changes WHERE stream = name AND seq >= first), first) + 99999);
    sent bigint;
BEGIN
    IF (SELECT count(DISTINCT seq) FROM changes WHERE stream = name AND seq BETWEEN first AND most)
            < least(most, (SELECT seq FROM streams WHERE stream = name)) - first + 1 THEN
        INSERT INTO streams (stream, seq) SELECT name, first_number(epoch) - 1 FROM incarnation WHERE epoch > 1 ON CONFLICT DO NOTHING;
        INSERT INTO restatements (stream, ordered) VALUES (name, FOUND) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO changes (stream, seq, payload, again)
        SELECT DISTINCT ON (c.seq) c.stream, c.seq, c.payload, true
        FROM changes c WHERE c.stream = name AND c.seq BETWEEN first AND most AND NOT EXISTS (
            SELECT FROM changes a WHERE a.stream = name AND a.seq = c.seq AND a.again AND a.at > now() - interval '2 seconds')
        ORDER BY c.seq;
    GET DIAGNOSTICS sent = ROW_COUNT;
    RETURN sent;
END $$;
