CREATE TABLE invitations (
    org_id uuid NOT NULL DEFAULT tenant(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    email text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'accepted', 'withdrawn', 'expired')),
    invited_by uuid NOT NULL,
    flow_id uuid,
    expires_at timestamptz NOT NULL DEFAULT mesh_now() + interval '7 days',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE UNIQUE INDEX already_invited ON invitations (org_id, email) WHERE state = 'pending';
SELECT tenant_table('invitations');
SELECT publish_table('invitations', stream => 'org', private => '{flow_id}');

-- Who accepts an invitation knows its id and not yet its organization.
CREATE TABLE invitation_org (id uuid PRIMARY KEY, org_id uuid NOT NULL);
SELECT shared_table('invitation_org', 'finds the organization of an invitation; ids only');
