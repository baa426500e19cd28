-- An organization that came with a sign-up gets its first database by itself; the plan says what there may be.
ALTER TABLE organizations ADD COLUMN origin text;
CREATE TABLE subscriptions (org_id uuid PRIMARY KEY, limits jsonb NOT NULL);
SELECT replica_table('subscriptions', source => 'billing.subscriptions');

CREATE TABLE data_planes (
    id text PRIMARY KEY,
    host text NOT NULL,
    port int NOT NULL,
    databases int NOT NULL,
    agent_epoch bigint NOT NULL,
    counter bigint NOT NULL,
    last_seen timestamptz NOT NULL DEFAULT now()
);
SELECT shared_table('data_planes', 'the platform''s own servers, as their agents announce them');

CREATE TABLE placements (org_id uuid PRIMARY KEY, data_plane text NOT NULL REFERENCES data_planes);
CREATE INDEX placements_at ON placements (data_plane);
SELECT shared_table('placements', 'counts the tenants of a data plane; ids only');

-- Facts are written, states follow from them: `observed` is the last generation the data plane has confirmed.
CREATE TABLE tenants (
    org_id uuid PRIMARY KEY DEFAULT tenant(),
    data_plane text NOT NULL REFERENCES data_planes,
    topic text NOT NULL,
    assignment_generation bigint NOT NULL DEFAULT 1,
    opened boolean NOT NULL DEFAULT false,
    wanted text NOT NULL DEFAULT 'active' CHECK (wanted IN ('active', 'suspended')),
    generation bigint NOT NULL DEFAULT 1,
    observed bigint NOT NULL DEFAULT 0,
    error text,
    state text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN wanted = 'suspended' THEN CASE WHEN observed = generation THEN 'suspended' ELSE 'suspending' END
        WHEN observed = generation OR generation = 1 THEN 'active' ELSE 'resuming' END) STORED,
    repeats int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN tenants.opened IS 'The feed''s topic is there and the agent may read it: desired state is said from now on.';
SELECT tenant_table('tenants');
SELECT publish_table('tenants', stream => 'org', private => '{opened,repeats}');

CREATE TABLE kafka_grants (
    org_id uuid NOT NULL DEFAULT tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    topic text NOT NULL,
    principal text NOT NULL,
    state text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'granted')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
SELECT tenant_table('kafka_grants');

-- How far the reports of a data plane about a tenant were heard.
CREATE TABLE reports (
    org_id uuid NOT NULL DEFAULT tenant(),
    data_plane text NOT NULL,
    agent_epoch bigint NOT NULL,
    counter bigint NOT NULL,
    PRIMARY KEY (org_id, data_plane)
);
SELECT tenant_table('reports');

-- What is said to the data planes: Debezium carries each new row to its topic. A null payload is a tombstone.
CREATE TABLE tenant_feed (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    key text NOT NULL,
    payload text,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tenant_feed_at ON tenant_feed (at);
SELECT shared_table('tenant_feed', 'outbox of all topics; the service inserts and cannot read it');
DO $$ BEGIN EXECUTE format('REVOKE SELECT, UPDATE, DELETE ON tenant_feed FROM %I', current_schema || '_app'); END $$;

CREATE FUNCTION forget_feed(keep interval DEFAULT '1 day') RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS
$$ DELETE FROM tenant_feed WHERE at < now() - keep $$;
