-- What the console keeps about all services. Every table is written by the bulk role alone, for every tenant at once, in the
-- transaction that moves the positions; requests only read, each as its tenant or person.

-- model_table('flows', readable => '…'): kept by the bulk role; others see the rows for which the condition holds.
CREATE FUNCTION model_table(table_name text, readable text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', table_name);
    EXECUTE format('CREATE POLICY readable ON %I FOR SELECT USING (%s)', table_name, readable);
    EXECUTE format('CREATE POLICY bulk ON %I TO %I USING (true) WITH CHECK (true)', table_name, current_schema || '_replica');
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON %I FROM %I', table_name, current_schema || '_app');
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO %I', table_name, current_schema || '_replica');
END $$;

-- How new the data of each service is. heads_at: everything it committed before was announced.
CREATE TABLE sources (
    source text PRIMARY KEY,
    newest_at timestamptz NOT NULL,
    heads_at timestamptz
) WITH (fillfactor = 50);
SELECT model_table('sources', readable => 'true');
SELECT shared_table('sources', 'ages of the data; no tenant''s rows');

-- Every change of every service: who did what when. Holds names of columns, never their values, but for the columns that flows
-- are made of (facts): states, kinds.
CREATE TABLE history (
    name text PRIMARY KEY,
    stream text NOT NULL,
    org_id uuid,
    at timestamptz NOT NULL,
    by text,
    flow_id uuid,
    cause text,
    "table" text NOT NULL,
    op text NOT NULL,
    key text NOT NULL,
    columns text[] NOT NULL,
    facts jsonb
);
COMMENT ON COLUMN history.name IS 'service/stream/epoch.seq, as the cause of others names it.';
CREATE INDEX history_flow ON history (flow_id) WHERE facts IS NOT NULL;
CREATE INDEX history_row ON history ("table", key) WHERE facts IS NOT NULL;
CREATE INDEX history_org ON history (org_id, at);
SELECT model_table('history', readable => 'org_id = (SELECT tenant())');

-- What is parked, failing or fused anywhere now. A fuse, and work that fails, have no source or stream of a change.
CREATE TABLE troubles (
    service text NOT NULL,
    actor text NOT NULL,
    about text NOT NULL,
    target text,
    flow_id uuid,
    state text NOT NULL,
    attempt int NOT NULL,
    error text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (service, actor, about)
);
CREATE INDEX troubles_flow ON troubles (flow_id);
CREATE INDEX troubles_target ON troubles (target);
SELECT model_table('troubles', readable => 'false');
COMMENT ON COLUMN troubles.actor IS 'The reaction or worker, as <service>.<function>.';

CREATE TABLE flows (
    id uuid PRIMARY KEY,
    flow text NOT NULL,
    version int NOT NULL,
    state text NOT NULL,
    org_id uuid,
    starter text,
    person uuid,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    step text,
    actors text[] NOT NULL,
    check_at timestamptz,
    steps jsonb NOT NULL,
    rev int NOT NULL DEFAULT 1
);
COMMENT ON COLUMN flows.step IS 'The first step that is still to come.';
COMMENT ON COLUMN flows.actors IS 'Who leads to the steps that are still to come.';
COMMENT ON COLUMN flows.check_at IS 'When the passing of time alone makes a difference next, at the data''s time.';
CREATE INDEX flows_org ON flows (org_id, started_at, id);
CREATE INDEX flows_started ON flows (started_at, id);
CREATE INDEX flows_check ON flows (check_at) WHERE check_at IS NOT NULL;
CREATE INDEX flows_actors ON flows USING gin (actors) WHERE finished_at IS NULL;
CREATE INDEX flows_unfinished ON flows (flow, step, state) WHERE finished_at IS NULL;
SELECT model_table('flows', readable => 'org_id = (SELECT tenant()) OR person = (SELECT person())');

-- The rows that unfinished flows look at, whoever changes them.
CREATE TABLE flow_bindings (
    "table" text NOT NULL,
    key text NOT NULL,
    flow_id uuid NOT NULL REFERENCES flows,
    PRIMARY KEY ("table", key, flow_id)
);
CREATE INDEX flow_bindings_of ON flow_bindings (flow_id);
SELECT model_table('flow_bindings', readable => 'false');

-- A flow is asked for by its id alone.
CREATE TABLE flow_org (id uuid PRIMARY KEY, org_id uuid);
SELECT model_table('flow_org', readable => 'true');
SELECT shared_table('flow_org', 'finds the organization of a flow; ids only');

DO $$ BEGIN
    EXECUTE format('GRANT SELECT ON expected TO %I', current_schema || '_replica');
END $$;
