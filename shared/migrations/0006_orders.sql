-- What operators order (rows of the console) is taken here, and carried out apart from everything that can be parked.

CREATE TABLE orders_taken (
    id uuid PRIMARY KEY,
    act text NOT NULL,
    actors text[] NOT NULL,
    subject text,
    change text,
    from_seq bigint,
    to_seq bigint,
    flow_id uuid,
    by text,
    cause text NOT NULL,
    given_at timestamptz NOT NULL,
    done_at timestamptz
);
CREATE INDEX orders_to_do ON orders_taken (given_at) WHERE done_at IS NULL;
CREATE INDEX orders_cancelled ON orders_taken (flow_id) WHERE act = 'cancel';
COMMENT ON TABLE orders_taken IS 'Each order once. A cancelled flow stays here: no reaction runs for it any more.';

-- What came of an order here. Published on the stream it concerns, so that it stands in that organization's audit trail.
CREATE TABLE order_results (
    order_id uuid NOT NULL,
    act text NOT NULL,
    actor text NOT NULL,
    subject text NOT NULL,
    target text NOT NULL,
    did boolean NOT NULL,
    outcome text NOT NULL,
    PRIMARY KEY (order_id, actor, subject)
);
SELECT publish_table('order_results', stream => 'row', key => 'target');

SELECT shared_table(t, 'kept by the kit; names of reactions and streams, and ids') FROM unnest('{orders_taken,order_results}'::text[]) t;

-- The change that a parked reaction fails on: an operator who skips it names it, so that no other is skipped in its place.
ALTER TABLE parked ADD COLUMN change text NOT NULL DEFAULT '';

-- A restatement that a person ordered also closes the holes that nothing else could close, for reactions too.
ALTER TABLE restatements ADD COLUMN ordered boolean NOT NULL DEFAULT false;

DROP FUNCTION restate(text);
CREATE FUNCTION restate(name text, ordered boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    stream_kind text := CASE WHEN name LIKE 'global:%' THEN name ELSE split_part(name, ':', 1) END;
    since bigint;
    t published;
    r jsonb;
    n bigint := 0;
BEGIN
    since := append_change(name, '_restate', 'restate', NULL, jsonb_build_object('marker', 'start', 'ordered', ordered));
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
