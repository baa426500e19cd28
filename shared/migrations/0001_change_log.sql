-- The change log: every committed change of a published table becomes one numbered record of its stream.
-- Runs in each service's schema as its owner; the schema's name is the service's name.

CREATE TABLE incarnation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL DEFAULT 1
);
INSERT INTO incarnation DEFAULT VALUES;

CREATE TABLE streams (
    stream text PRIMARY KEY,
    seq bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE changes (
    stream text NOT NULL,
    seq bigint NOT NULL,
    payload text NOT NULL,
    again boolean NOT NULL DEFAULT false,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (at);
CREATE INDEX changes_stream ON changes (stream, seq);
CREATE INDEX changes_xid ON changes (xid);
COMMENT ON TABLE changes IS 'Outbox, audit source and replay source. again: sent once more under its old number.';

-- Weekly partitions; one is made ahead of need, old ones are dropped whole.
CREATE FUNCTION keep_changes(keep interval DEFAULT '35 days') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE week timestamptz; part text; old record;
BEGIN
    FOR week IN SELECT generate_series(date_trunc('week', now(), 'UTC'), now() + interval '14 days', interval '7 days') LOOP
        part := 'changes_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I PARTITION OF changes FOR VALUES FROM (%L) TO (%L)', part, week, week + interval '7 days');
        END IF;
    END LOOP;
    FOR old IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'changes'::regclass
                 AND to_timestamp(right(c.relname, 8) || '+00', 'YYYYMMDDTZH') + interval '7 days' < now() - keep LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
END $$;
SELECT keep_changes();

CREATE TABLE published (
    name text PRIMARY KEY,
    kind text NOT NULL,
    key text,
    private text[] NOT NULL
);
COMMENT ON TABLE published IS 'The tables that travel: the kind of stream, the column that holds the stream''s id, the columns that never leave.';

-- Whose request this is. A transaction without a tenant sees no tenant's rows.
CREATE FUNCTION tenant() RETURNS uuid LANGUAGE sql STABLE AS
$$ SELECT nullif(current_setting('app.org_id', true), '')::uuid $$;

CREATE FUNCTION person() RETURNS uuid LANGUAGE sql STABLE AS
$$ SELECT nullif(current_setting('app.user_id', true), '')::uuid $$;

-- Locks the streams a transaction will write, in sorted order, before it reads anything its writes depend on:
-- under READ COMMITTED every later statement then sees all earlier writers of these streams.
CREATE FUNCTION lock_streams(names text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO streams (stream)
        SELECT DISTINCT n FROM unnest(names) n WHERE NOT EXISTS (SELECT FROM streams WHERE stream = n) ORDER BY n
        ON CONFLICT DO NOTHING;
    PERFORM FROM streams WHERE stream = ANY (names) ORDER BY stream FOR UPDATE;
    PERFORM set_config('app.streams',
        coalesce(nullif(current_setting('app.streams', true), ''), '|') || array_to_string(names, '|') || '|', true);
END $$;

-- Sets who acts for whom and why, then locks: what the kit runs first in a transaction.
CREATE FUNCTION enter(org uuid, acting_person uuid, context text, names text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.org_id', coalesce(org::text, ''), true),
            set_config('app.user_id', coalesce(acting_person::text, ''), true),
            set_config('app.context', context, true);
    IF cardinality(names) > 0 THEN
        PERFORM lock_streams(names);
    END IF;
END $$;

-- Appends one record under the next number of its stream, which must be locked.
CREATE FUNCTION append_change(name text, table_name text, op text, old jsonb, new jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    context jsonb := nullif(current_setting('app.context', true), '')::jsonb;
    number bigint;
    record text;
BEGIN
    IF strpos(coalesce(current_setting('app.streams', true), ''), '|' || name || '|') = 0 THEN
        RAISE EXCEPTION 'stream % is written but was not locked', name
            USING ERRCODE = 'MS001', HINT = 'Name it when the transaction is entered, or with writes= on the reaction.';
    END IF;
    UPDATE streams SET seq = seq + 1 WHERE stream = name RETURNING seq INTO number;
    record := json_build_object(
        'stream', name, 'seq', number, 'epoch', (SELECT epoch FROM incarnation), 'table', table_name, 'op', op,
        'at', clock_timestamp(), 'by', context ->> 'by', 'flow_id', context ->> 'flow_id', 'cause', context ->> 'cause',
        'hops', coalesce((context ->> 'hops')::int, 0), 'traceparent', context ->> 'traceparent',
        'before', old, 'after', new)::text;
    IF octet_length(record) > 262144 THEN
        RAISE EXCEPTION 'a row of % makes a change record of % bytes', table_name, octet_length(record)
            USING ERRCODE = 'MS002', HINT = 'A change record holds at most 262144 bytes.';
    END IF;
    INSERT INTO changes (stream, seq, payload) VALUES (name, number, record);
    RETURN number;
END $$;

-- Trigger arguments: kind of stream ('' when the key column holds the whole name), key column or '', private columns.
CREATE FUNCTION log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    private text[] := TG_ARGV[2]::text[];
    new_row jsonb;
    old_row jsonb;
    changed jsonb;
    name text := TG_ARGV[0];
BEGIN
    IF TG_OP <> 'DELETE' THEN new_row := to_jsonb(NEW) - private; END IF;
    IF TG_OP <> 'INSERT' THEN old_row := to_jsonb(OLD) - private; END IF;
    IF TG_OP = 'UPDATE' THEN
        IF new_row = old_row THEN RETURN NULL; END IF;
        SELECT jsonb_object_agg(o.key, o.value) INTO changed FROM jsonb_each(old_row) o WHERE o.value IS DISTINCT FROM new_row -> o.key;
    ELSE
        changed := old_row;
    END IF;
    IF TG_ARGV[1] <> '' THEN
        name := CASE name WHEN '' THEN '' ELSE name || ':' END || (coalesce(new_row, old_row) ->> TG_ARGV[1]);
    END IF;
    PERFORM append_change(name, TG_TABLE_NAME, lower(TG_OP), changed, new_row);
    RETURN NULL;
END $$;

-- publish_table('invitations', stream => 'org'): its changes travel from now on.
-- stream: 'org', 'user', 'global:<name>', or 'row' where the key column holds the stream's whole name.
CREATE FUNCTION publish_table(table_name text, stream text, key text DEFAULT NULL, private text[] DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    column_name text := CASE WHEN stream LIKE 'global:%' THEN '' ELSE coalesce(key, stream || '_id') END;
BEGIN
    IF stream NOT IN ('org', 'user', 'row') AND stream NOT LIKE 'global:%' THEN
        RAISE EXCEPTION 'publish_table(%): stream must be org, user, row or global:<name>, not %', table_name, stream;
    END IF;
    EXECUTE format('CREATE TRIGGER log_change AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION log_change(%L, %L, %L)',
        table_name, CASE stream WHEN 'row' THEN '' ELSE stream END, column_name, private);
    INSERT INTO published VALUES (table_name, stream, nullif(column_name, ''), private);
END $$;

-- tenant_table('invitations'): only the tenant that is set sees or writes a row. person => 'user_id' lets the
-- signed-in person read the rows about them in every tenant.
CREATE FUNCTION tenant_table(table_name text, person text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
    EXECUTE format('CREATE POLICY tenant ON %I USING (org_id = (SELECT tenant())) WITH CHECK (org_id = (SELECT tenant()))', table_name);
    IF person IS NOT NULL THEN
        EXECUTE format('CREATE POLICY person ON %I FOR SELECT USING (%I = (SELECT person()))', table_name, person);
    END IF;
END $$;

-- person_table('sessions'): only the person who is set sees or writes a row.
CREATE FUNCTION person_table(table_name text, key text DEFAULT 'user_id') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
    EXECUTE format('CREATE POLICY person ON %I USING (%I = (SELECT person())) WITH CHECK (%I = (SELECT person()))', table_name, key, key);
END $$;

-- shared_table('plans'): named as one that belongs to no tenant; holds ids or public facts only.
CREATE TABLE shared_tables (name text PRIMARY KEY, reason text NOT NULL);
CREATE FUNCTION shared_table(table_name text, reason text) RETURNS void LANGUAGE sql AS
$$ INSERT INTO shared_tables VALUES (table_name, reason) $$;
