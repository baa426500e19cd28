CREATE TABLE databases (
    org_id uuid NOT NULL DEFAULT tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,39}$'),
    -- On the server: unique there, never a reserved name, and short enough for what the agent appends to it.
    dbname text NOT NULL GENERATED ALWAYS AS ('db_' || left(replace(id::text, '-', ''), 12) || '_' || name) STORED,
    data_plane text REFERENCES data_planes,
    connection_limit int NOT NULL CHECK (connection_limit > 0),
    wanted text NOT NULL DEFAULT 'present' CHECK (wanted IN ('present', 'deleted', 'gone')),
    undo_until timestamptz,
    generation bigint NOT NULL DEFAULT 0,
    observed bigint NOT NULL DEFAULT 0,
    suspended boolean NOT NULL DEFAULT false,
    error text,
    state text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN error IS NOT NULL THEN 'failed'
        WHEN wanted = 'gone' THEN CASE WHEN observed = generation THEN 'gone' ELSE 'deleting' END
        WHEN wanted = 'deleted' THEN CASE WHEN observed = generation THEN 'deleted' ELSE 'deleting' END
        WHEN generation = 0 THEN 'requested'
        WHEN observed = 0 THEN 'provisioning'
        WHEN observed < generation THEN 'changing'
        WHEN suspended THEN 'suspended' ELSE 'ready' END) STORED,
    flow_id uuid,
    repeats int NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
COMMENT ON COLUMN databases.generation IS '0: not said to a data plane yet.';
CREATE UNIQUE INDEX database_name_taken ON databases (org_id, name) WHERE wanted <> 'gone';
SELECT tenant_table('databases');
SELECT publish_table('databases', stream => 'org', private => '{flow_id,repeats,suspended}');

-- What a member may do in all databases of the organization.
CREATE TABLE grants (
    org_id uuid NOT NULL DEFAULT tenant(),
    user_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    state text NOT NULL CHECK (state IN ('pending', 'applied', 'revoking', 'revoked')),
    PRIMARY KEY (org_id, user_id)
);
SELECT tenant_table('grants');
SELECT publish_table('grants', stream => 'org');

-- One member's way into one database. The id follows from both, so a member who returns gets the same one.
CREATE TABLE logins (
    org_id uuid NOT NULL DEFAULT tenant(),
    database_id uuid NOT NULL,
    user_id uuid NOT NULL,
    id uuid NOT NULL GENERATED ALWAYS AS (left(encode(sha256((database_id::text || user_id)::bytea), 'hex'), 32)::uuid) STORED,
    username text NOT NULL GENERATED ALWAYS AS ('u_' || left(encode(sha256((database_id::text || user_id)::bytea), 'hex'), 20)) STORED,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    verifier text,
    removed boolean NOT NULL DEFAULT false,
    generation bigint NOT NULL DEFAULT 1,
    observed bigint NOT NULL DEFAULT 0,
    error text,
    state text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN removed THEN CASE WHEN observed = generation THEN 'gone' ELSE 'removing' END
        WHEN error IS NOT NULL THEN 'failed'
        WHEN observed < generation THEN 'pending' ELSE 'ready' END) STORED,
    credentials text NOT NULL GENERATED ALWAYS AS (CASE
        WHEN verifier IS NULL THEN 'none' WHEN observed < generation THEN 'requested' ELSE 'ready' END) STORED,
    repeats int NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, database_id, user_id),
    FOREIGN KEY (org_id, database_id) REFERENCES databases
);
COMMENT ON COLUMN logins.verifier IS 'SCRAM-SHA-256, of a generated password that nobody here keeps; goes to the data plane alone.';
SELECT tenant_table('logins');
SELECT publish_table('logins', stream => 'org', private => '{verifier,removed,repeats}');
