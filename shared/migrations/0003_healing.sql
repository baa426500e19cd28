-- How a lost record is noticed and sent again.

CREATE TABLE heads_sent (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    until xid8 NOT NULL
);
INSERT INTO heads_sent (until) VALUES (pg_snapshot_xmin(pg_current_snapshot()));

-- Appends the newest number of every stream that committed since the last call to global:heads, in records of at most 1 000
-- streams. Everything below the snapshot's xmin is committed or gone, so nothing can slip in behind the mark.
CREATE FUNCTION announce_heads() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    since xid8;
    before_this xid8 := pg_snapshot_xmin(pg_current_snapshot());
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
        PERFORM append_change('global:heads', '_heads', 'insert', NULL, jsonb_build_object('heads', chunk));
        sent := sent + 1;
    END LOOP;
    IF sent = 0 THEN
        PERFORM append_change('global:heads', '_heads', 'insert', NULL, '{"heads": {}}');
    END IF;
    UPDATE heads_sent SET until = before_this;
    RETURN sent;
END $$;

-- Streams to be restated, one after the other, at a pace that leaves the live changes their speed.
CREATE TABLE restatements (stream text PRIMARY KEY, asked_at timestamptz NOT NULL DEFAULT now());
SELECT shared_table('restatements', 'kept by the kit; names of streams only');

-- Sends numbers first..last of a stream once more, once for all who ask within two seconds. Answers how many were sent. Numbers
-- that the log does not hold any more cannot be sent: the stream is restated instead.
CREATE FUNCTION send_again(name text, first bigint, last bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    sent bigint;
BEGIN
    IF (SELECT count(DISTINCT seq) FROM changes WHERE stream = name AND seq BETWEEN first AND last)
            < least(last, (SELECT seq FROM streams WHERE stream = name)) - first + 1 THEN
        INSERT INTO restatements (stream) VALUES (name) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO changes (stream, seq, payload, again)
        SELECT DISTINCT ON (c.seq) c.stream, c.seq, c.payload, true
        FROM changes c WHERE c.stream = name AND c.seq BETWEEN first AND last AND NOT EXISTS (
            SELECT FROM changes a WHERE a.stream = name AND a.seq = c.seq AND a.again AND a.at > now() - interval '2 seconds')
        ORDER BY c.seq;
    GET DIAGNOSTICS sent = ROW_COUNT;
    RETURN sent;
END $$;

-- Appends the present rows of a stream as restate records between a start and an end marker. The stream must be locked and
-- its tenant or person set, so that row-level security shows its rows and no others.
CREATE FUNCTION restate(name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    stream_kind text := CASE WHEN name LIKE 'global:%' THEN name ELSE split_part(name, ':', 1) END;
    since bigint;
    t published;
    r jsonb;
    n bigint := 0;
BEGIN
    since := append_change(name, '_restate', 'restate', NULL, '{"marker": "start"}');
    FOR t IN SELECT * FROM published p WHERE p.kind IN (stream_kind, 'row') ORDER BY p.name LOOP
        FOR r IN EXECUTE format('SELECT to_jsonb(x) - $2 FROM %I x', t.name)
                || CASE WHEN t.key IS NULL THEN '' ELSE format(' WHERE %I::text = $1', t.key) END
                USING CASE t.kind WHEN 'row' THEN name ELSE split_part(name, ':', 2) END, t.private
        LOOP
            PERFORM append_change(name, t.name, 'restate', NULL, r);
            n := n + 1;
        END LOOP;
    END LOOP;
    PERFORM append_change(name, '_restate', 'restate', NULL, jsonb_build_object('marker', 'end', 'since', since));
    RETURN n;
END $$;
