-- Who may do what, known locally in every service, also while the user and org services are down. A service that owns one of
-- these tables makes it in its own migrations under the same name; everywhere else it is a replica.

DO $$
BEGIN
    IF current_schema <> 'org' THEN
        -- The tenant's clock: real time plus what was advanced in a test organization.
        CREATE TABLE test_clocks (org_id uuid PRIMARY KEY, advanced interval NOT NULL);
        PERFORM replica_table('test_clocks', source => 'org.test_clocks', visible => 'all');

        CREATE TABLE memberships (org_id uuid, user_id uuid, role text NOT NULL, PRIMARY KEY (org_id, user_id));
        PERFORM replica_table('memberships', source => 'org.memberships', person => 'user_id');

        CREATE TABLE organizations (org_id uuid PRIMARY KEY, name text NOT NULL, state text NOT NULL);
        PERFORM replica_table('organizations', source => 'org.organizations');
    END IF;
    IF current_schema <> 'user' THEN
        CREATE TABLE signing_keys (id uuid PRIMARY KEY, public_key text NOT NULL, not_before timestamptz NOT NULL, not_after timestamptz);
        PERFORM replica_table('signing_keys', source => 'user.signing_keys', visible => 'all');

        CREATE TABLE api_keys (id uuid PRIMARY KEY, user_id uuid NOT NULL, secret_hash text NOT NULL, scopes text[] NOT NULL,
            state text NOT NULL, expires_at timestamptz);
        PERFORM replica_table('api_keys', source => 'user.api_keys', visible => 'person', person => 'user_id');

        CREATE TABLE ended_sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL, ended_at timestamptz NOT NULL);
        PERFORM replica_table('ended_sessions', source => 'user.ended_sessions', visible => 'person', person => 'user_id');

        -- Creating more needs a verified address. A service that needs a person's name or address adds the column and says why.
        CREATE TABLE users (id uuid PRIMARY KEY, verified_at timestamptz);
        PERFORM replica_table('users', source => 'user.users', visible => 'person', person => 'id');
    END IF;
END $$;

-- Business time: real time plus what the tenant's test clock was advanced. (plpgsql: in org the table comes later.)
CREATE FUNCTION mesh_now(org uuid DEFAULT NULL) RETURNS timestamptz LANGUAGE plpgsql STABLE AS
$$ BEGIN
    RETURN now() + coalesce((SELECT advanced FROM test_clocks WHERE org_id = coalesce(org, tenant())), interval '0');
END $$;
