CREATE TABLE signing_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    public_key text NOT NULL,
    private_key text NOT NULL,
    not_before timestamptz NOT NULL,
    not_after timestamptz
);
SELECT shared_table('signing_keys', 'belongs to the service; the private part never travels');
SELECT publish_table('signing_keys', stream => 'global:signing_keys', private => '{private_key}');

-- A session is a family of refresh tokens of which only the newest is good.
CREATE TABLE sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    refresh_hash text NOT NULL,
    user_agent text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    refreshed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
SELECT person_table('sessions');
CREATE INDEX sessions_of ON sessions (user_id, created_at);

CREATE TABLE ended_sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL, ended_at timestamptz NOT NULL DEFAULT now());
SELECT person_table('ended_sessions');
SELECT publish_table('ended_sessions', stream => 'user');

CREATE TABLE sign_in_failures (email text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX sign_in_failures_at ON sign_in_failures (email, at);
SELECT shared_table('sign_in_failures', 'counts failures of an address before a person is known');

CREATE TABLE api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    name text NOT NULL,
    secret_hash text NOT NULL,
    scopes text[] NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'revoked')),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT person_table('api_keys');
SELECT publish_table('api_keys', stream => 'user');
