-- Moves positions past changes that a reader has nothing to do about, where the last one before them is what it saw last and nothing is
-- held: one statement instead of a transaction. Answers the streams that it moved in.
CREATE FUNCTION pass_positions(which text, sources text[], names text[], epochs bigint[], befores bigint[], lasts bigint[])
RETURNS TABLE (source text, stream text) LANGUAGE sql AS $$
    UPDATE positions p SET seq = u.last
    FROM unnest(sources, names, epochs, befores, lasts) AS u (source, stream, epoch, before, last)
    WHERE p.reader = which AND p.source = u.source AND p.stream = u.stream AND p.epoch = u.epoch AND p.seq = u.before
        AND NOT EXISTS (SELECT FROM held h WHERE h.reader = which AND h.source = u.source AND h.stream = u.stream)
    RETURNING p.source, p.stream
$$;
