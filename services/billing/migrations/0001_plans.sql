-- What can be had and what it costs. Changed by migrations alone: a plan's limits are copied into each subscription.
CREATE TABLE plans (
    id text PRIMARY KEY,
    position smallint NOT NULL UNIQUE,
    name text NOT NULL,
    description text NOT NULL,
    amount int NOT NULL CHECK (amount >= 0),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    "interval" text NOT NULL CHECK ("interval" IN ('month', 'year')),
    limits jsonb NOT NULL CHECK (limits ?& '{databases,members,connections}')
);
SELECT shared_table('plans', 'the public price list');
DO $$ BEGIN
    EXECUTE format('REVOKE INSERT, UPDATE, DELETE ON plans FROM %I', current_schema || '_app');
END $$;
COMMENT ON COLUMN plans.amount IS 'Price of one interval in minor units of the currency (ISO 4217).';

INSERT INTO plans (position, id, name, description, amount, currency, "interval", limits) VALUES
    (1, 'free', 'Free', 'One small database for a first project.', 0, 'USD', 'month',
        '{"databases": 1, "members": 3, "connections": 5}'),
    (2, 'team', 'Team', 'For a team with separate databases for development, staging and production.', 2900, 'USD', 'month',
        '{"databases": 3, "members": 15, "connections": 20}'),
    (3, 'scale', 'Scale', 'For many teams and databases under load.', 29900, 'USD', 'month',
        '{"databases": 20, "members": 200, "connections": 100}');
