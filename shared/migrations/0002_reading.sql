-- What a service keeps about the changes it reads from others.

CREATE TABLE positions (
    reader text NOT NULL,
    source text NOT NULL,
    stream text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (reader, source, stream)
) WITH (fillfactor = 50);
COMMENT ON TABLE positions IS 'The last change applied of each stream; commits together with its effect.';

CREATE TABLE held (
    reader text NOT NULL,
    source text NOT NULL,
    stream text NOT NULL,
    seq bigint NOT NULL,
    record text NOT NULL,
    PRIMARY KEY (reader, source, stream, seq)
);
COMMENT ON TABLE held IS 'Changes that wait for a missing earlier one of their stream.';

CREATE TABLE undecodable (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    partition int NOT NULL,
    kafka_offset bigint NOT NULL,
    key bytea,
    value bytea,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (topic, partition, kafka_offset)
);

-- A hole in another service's stream that this service asks the owner to send again.
CREATE TABLE resend_requests (
    source text NOT NULL,
    stream text NOT NULL,
    from_seq bigint NOT NULL,
    round int NOT NULL DEFAULT 1,
    to_seq bigint NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    PRIMARY KEY (source, stream, from_seq)
);
SELECT publish_table('resend_requests', stream => 'global:resend');

-- A reaction that failed on a stream: this change and later ones of the stream wait for it, in order.
CREATE TABLE parked (
    reaction text NOT NULL,
    source text NOT NULL,
    stream text NOT NULL,
    target text NOT NULL,
    state text NOT NULL DEFAULT 'retrying' CHECK (state IN ('waiting', 'retrying', 'dead')),
    attempt int NOT NULL DEFAULT 1,
    since timestamptz NOT NULL DEFAULT now(),
    next_at timestamptz NOT NULL,
    error text NOT NULL,
    flow_id uuid,
    PRIMARY KEY (reaction, source, stream)
);
CREATE INDEX parked_next ON parked (next_at) WHERE state <> 'dead';
SELECT publish_table('parked', stream => 'row', key => 'target');

CREATE TABLE parked_changes (
    reaction text NOT NULL,
    source text NOT NULL,
    stream text NOT NULL,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    record text NOT NULL,
    PRIMARY KEY (reaction, source, stream, epoch, seq),
    FOREIGN KEY (reaction, source, stream) REFERENCES parked ON DELETE CASCADE
);

CREATE TABLE fuses (
    reaction text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now(),
    error text NOT NULL
);
SELECT publish_table('fuses', stream => 'global:fuses');

-- Replicas: copies of other services' rows, written by the replica role alone.
CREATE TABLE replicas (
    name text PRIMARY KEY,
    source text NOT NULL UNIQUE
);
COMMENT ON TABLE replicas IS 'source: <service>.<table>';

-- replica_table('memberships', source => 'org.memberships', person => 'user_id'): kept equal to its source.
-- visible => 'tenant' shows a row to its tenant (and to the person it is about), 'person' to that person only, 'all' to every request.
CREATE FUNCTION replica_table(table_name text, source text, person text DEFAULT NULL, visible text DEFAULT 'tenant') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    service text := current_schema;
BEGIN
    EXECUTE format('ALTER TABLE %I ADD COLUMN _stream text, ADD COLUMN _seq bigint', table_name);
    EXECUTE format('CREATE INDEX ON %I (_stream)', table_name);
    IF visible = 'tenant' THEN
        PERFORM tenant_table(table_name, person);
    ELSIF visible = 'person' THEN
        PERFORM person_table(table_name, person);
    ELSE
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
        EXECUTE format('CREATE POLICY readable ON %I FOR SELECT USING (true)', table_name);
        PERFORM shared_table(table_name, 'replica of ' || source);
    END IF;
    EXECUTE format('CREATE POLICY replica ON %I TO %I USING (true) WITH CHECK (true)', table_name, service || '_replica');
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I FROM %I', table_name, service || '_app');
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO %I', table_name, service || '_replica');
    INSERT INTO replicas VALUES (table_name, source);
END $$;

-- Timers and work: ids only, no tenant's data, so that a worker finds them before it knows the tenant.
CREATE TABLE due (
    kind text NOT NULL,
    target text NOT NULL,
    id uuid NOT NULL,
    due_at timestamptz NOT NULL DEFAULT now(),
    attempt int NOT NULL DEFAULT 0,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    since timestamptz NOT NULL DEFAULT now(),
    context jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (kind, target, id)
);
CREATE INDEX due_at ON due (kind, due_at);
COMMENT ON TABLE due IS 'What a worker or timer must do next: target is the stream it writes, due_at the tenant''s time.';

CREATE TABLE idempotency (
    caller text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status int NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_at ON idempotency (at);

SELECT shared_table(t, 'kept by the kit; holds no business rows') FROM unnest('{incarnation,streams,changes,published,shared_tables,
    positions,held,undecodable,resend_requests,parked,parked_changes,fuses,replicas,due,idempotency,heads_sent}'::text[]) t;

-- Locks the positions of these streams in sorted order, made where they are missing. What a zombie's successor has committed
-- meanwhile is seen, because each row is read after its lock is granted.
CREATE FUNCTION lock_positions(which text, sources text[], names text[])
RETURNS TABLE (source text, stream text, epoch bigint, seq bigint, holding boolean, parked text[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO positions (reader, source, stream)
        SELECT which, u.s, u.n FROM unnest(sources, names) AS u (s, n)
        WHERE NOT EXISTS (SELECT FROM positions p WHERE p.reader = which AND p.source = u.s AND p.stream = u.n) ORDER BY u.s, u.n
        ON CONFLICT DO NOTHING;
    RETURN QUERY
        WITH locked AS (
            SELECT p.source, p.stream, p.epoch, p.seq FROM positions p
            JOIN unnest(sources, names) AS u (s, n) ON p.reader = which AND p.source = u.s AND p.stream = u.n
            ORDER BY p.source, p.stream FOR UPDATE OF p)
        SELECT l.source, l.stream, l.epoch, l.seq,
            EXISTS (SELECT FROM held h WHERE h.reader = which AND h.source = l.source AND h.stream = l.stream),
            ARRAY(SELECT k.reaction FROM parked k WHERE k.source = l.source AND k.stream = l.stream)
        FROM locked l;
END $$;

CREATE FUNCTION set_positions(which text, sources text[], names text[], epochs bigint[], seqs bigint[]) RETURNS void LANGUAGE sql AS $$
    UPDATE positions p SET epoch = u.e, seq = u.q
    FROM unnest(sources, names, epochs, seqs) AS u (s, n, e, q)
    WHERE p.reader = which AND p.source = u.s AND p.stream = u.n
$$;

CREATE TABLE expected (
    reader text NOT NULL,
    source text NOT NULL,
    stream text NOT NULL,
    seq bigint NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reader, source, stream)
);
COMMENT ON TABLE expected IS 'Streams whose announced head was ahead of the position: asked for when the grace is over.';
SELECT shared_table('expected', 'kept by the kit; holds no business rows');
