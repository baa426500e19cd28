CREATE TABLE subscriptions (
    org_id uuid PRIMARY KEY DEFAULT tenant(),
    plan text NOT NULL REFERENCES plans,
    state text NOT NULL CHECK (state IN ('trialing', 'active')),
    limits jsonb NOT NULL,
    trial_ends_at timestamptz CHECK (state <> 'trialing' OR trial_ends_at IS NOT NULL),
    customer_state text NOT NULL DEFAULT 'requested' CHECK (customer_state IN ('requested', 'ready', 'failed')),
    stripe_customer text UNIQUE CHECK ((customer_state = 'ready') = (stripe_customer IS NOT NULL)),
    customer_name text NOT NULL,
    customer_told text,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT tenant_table('subscriptions');
SELECT publish_table('subscriptions', stream => 'org', private => '{customer_name,customer_told}');
COMMENT ON COLUMN subscriptions.limits IS 'Those in force: the trial''s while it lasts, then the plan''s.';
COMMENT ON COLUMN subscriptions.customer_name IS 'The organization''s name, which its customer at Stripe is to have.';
COMMENT ON COLUMN subscriptions.customer_told IS 'The name that Stripe was last told.';
