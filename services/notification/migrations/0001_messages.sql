-- One row for each message to one recipient: queued first, mailed after.
CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    org_id uuid DEFAULT tenant(),
    user_id uuid,
    stream text NOT NULL DEFAULT coalesce('org:' || tenant(), 'user:' || person()),
    address text NOT NULL,
    template text NOT NULL,
    about uuid NOT NULL,
    occasion text NOT NULL DEFAULT '',
    subject text NOT NULL,
    body text,
    variables jsonb NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'cancelled', 'failed')),
    attempts int NOT NULL DEFAULT 0,
    error text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    read_at timestamptz,
    CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
    CHECK (org_id IS NOT NULL OR user_id IS NOT NULL)
);
COMMENT ON COLUMN messages.user_id IS 'The person it is for; null for an address that was invited.';
COMMENT ON COLUMN messages.occasion IS 'Tells apart two messages about the same row, where each time counts: the second suspension of one organization.';
COMMENT ON COLUMN messages.body IS 'What the person reads in the app; null where the mail holds a secret link.';
COMMENT ON COLUMN messages.expires_at IS 'The link in it is worth nothing after this: a mail that is late is not sent.';
SELECT tenant_table('messages');
-- The recipient reads it in every organization and marks it read; a message of no organization is wholly theirs.
CREATE POLICY person ON messages USING (user_id = (SELECT person())) WITH CHECK (user_id = (SELECT person()));
-- Who it went to and what it said stay at home; reading it is nobody's business but the reader's.
SELECT publish_table('messages', stream => 'row', key => 'stream',
    private => '{address,subject,body,variables,occasion,expires_at,read_at}');

-- Each message is made once, however often its cause comes.
CREATE UNIQUE INDEX made_once ON messages (template, about, occasion, coalesce(user_id::text, address));
CREATE INDEX messages_of_org ON messages (org_id, created_at, id);
CREATE INDEX messages_of_person ON messages (user_id, created_at, id);
CREATE INDEX messages_unsent ON messages (about) WHERE state = 'queued';

-- Mails go to a person's address and greet them by name; the owners of an organization are told about it.
ALTER TABLE users ADD COLUMN email text, ADD COLUMN name text;
CREATE POLICY colleague ON users FOR SELECT USING (EXISTS (
    SELECT FROM memberships theirs WHERE theirs.user_id = users.id AND theirs.org_id = (SELECT tenant())));

-- Only an organization that came with a sign-up gets the welcome mail.
ALTER TABLE organizations ADD COLUMN origin text;
