CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password_hash text NOT NULL,
    verified_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT person_table('users', key => 'id');
SELECT publish_table('users', stream => 'user', key => 'id', private => '{password_hash}');
-- Whoever shares an organization with me may see who I am.
CREATE POLICY colleague ON users FOR SELECT USING (EXISTS (
    SELECT FROM memberships theirs WHERE theirs.user_id = users.id AND theirs.org_id = (SELECT tenant())));

-- Sign-in and sign-up know an address and no person yet.
CREATE TABLE addresses (email text CONSTRAINT address_taken PRIMARY KEY, user_id uuid NOT NULL);
SELECT shared_table('addresses', 'finds the person before one is known; addresses and ids only');

CREATE TABLE sign_ups (
    user_id uuid PRIMARY KEY,
    organization text,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT person_table('sign_ups');
SELECT publish_table('sign_ups', stream => 'user');

CREATE TABLE link_requests (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL,
    email text NOT NULL,
    name text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('verify', 'reset', 'address_taken')),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'used')),
    flow_id uuid,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT person_table('link_requests');
SELECT publish_table('link_requests', stream => 'user', private => '{flow_id}');

-- Notification's public keys: they verify the tokens in the links of our mails.
CREATE TABLE link_keys (id uuid PRIMARY KEY, public_key text NOT NULL);
SELECT replica_table('link_keys', source => 'notification.link_keys', visible => 'all');
