-- What a reader keeps about a stream is read in a statement of its own, after its position is locked: a statement that waits for a row
-- sees that row as it became meanwhile, and all else as it was before.
CREATE OR REPLACE FUNCTION lock_positions(which text, sources text[], names text[])
RETURNS TABLE (source text, stream text, epoch bigint, seq bigint, holding boolean, parked text[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO positions (reader, source, stream)
        SELECT which, u.s, u.n FROM unnest(sources, names) AS u (s, n)
        WHERE NOT EXISTS (SELECT FROM positions p WHERE p.reader = which AND p.source = u.s AND p.stream = u.n) ORDER BY u.s, u.n
        ON CONFLICT DO NOTHING;
    PERFORM FROM positions p JOIN unnest(sources, names) AS u (s, n) ON p.reader = which AND p.source = u.s AND p.stream = u.n
        ORDER BY p.source, p.stream FOR UPDATE OF p;
    RETURN QUERY SELECT p.source, p.stream, p.epoch, p.seq,
            EXISTS (SELECT FROM held h WHERE h.reader = which AND h.source = p.source AND h.stream = p.stream),
            ARRAY(SELECT k.reaction FROM parked k WHERE k.source = p.source AND k.stream = p.stream)
        FROM positions p JOIN unnest(sources, names) AS u (s, n) ON p.reader = which AND p.source = u.s AND p.stream = u.n;
END $$;

CREATE OR REPLACE FUNCTION pass_positions(which text, sources text[], names text[], epochs bigint[], befores bigint[], lasts bigint[])
RETURNS TABLE (source text, stream text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM positions p JOIN unnest(sources, names) AS u (s, n) ON p.reader = which AND p.source = u.s AND p.stream = u.n
        ORDER BY p.source, p.stream FOR UPDATE OF p;
    RETURN QUERY UPDATE positions p SET seq = u.last
        FROM unnest(sources, names, epochs, befores, lasts) AS u (source, stream, epoch, before, last)
        WHERE p.reader = which AND p.source = u.source AND p.stream = u.stream AND p.epoch = u.epoch AND p.seq = u.before
            AND NOT EXISTS (SELECT FROM held h WHERE h.reader = which AND h.source = u.source AND h.stream = u.stream)
        RETURNING p.source, p.stream;
END $$;
