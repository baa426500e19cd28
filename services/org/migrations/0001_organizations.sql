CREATE TABLE organizations (
    org_id uuid PRIMARY KEY DEFAULT tenant(),
    name text NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'deleting', 'deleted')),
    suspended_by text CHECK (suspended_by IN ('owner', 'billing', 'operator')),
    reason text,
    origin text NOT NULL CHECK (origin IN ('sign_up', 'created')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'suspended') = (suspended_by IS NOT NULL))
);
SELECT tenant_table('organizations');
SELECT publish_table('organizations', stream => 'org');

CREATE TABLE memberships (
    org_id uuid NOT NULL DEFAULT tenant(),
    user_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT already_member PRIMARY KEY (org_id, user_id)
);
SELECT tenant_table('memberships', person => 'user_id');
SELECT publish_table('memberships', stream => 'org');
CREATE INDEX memberships_of ON memberships (user_id);

-- My organizations: those I am a member of.
CREATE POLICY person ON organizations FOR SELECT USING (EXISTS (
    SELECT FROM memberships mine WHERE mine.org_id = organizations.org_id AND mine.user_id = (SELECT person())));

-- How far a test organization's clock was advanced.
CREATE TABLE test_clocks (org_id uuid PRIMARY KEY DEFAULT tenant(), advanced interval NOT NULL);
SELECT tenant_table('test_clocks');
CREATE POLICY readable ON test_clocks FOR SELECT USING (true);  -- ids and intervals: timers look before they know the tenant
SELECT publish_table('test_clocks', stream => 'org');

-- An invitation is accepted by whoever owns its address; the members of an organization see each other's name and address.
ALTER TABLE users ADD COLUMN email text, ADD COLUMN name text;
CREATE POLICY colleague ON users FOR SELECT USING (EXISTS (
    SELECT FROM memberships theirs WHERE theirs.user_id = users.id AND theirs.org_id = (SELECT tenant())));

-- The plan says how many members there may be.
CREATE TABLE subscriptions (org_id uuid PRIMARY KEY, limits jsonb NOT NULL);
SELECT replica_table('subscriptions', source => 'billing.subscriptions');
