-- What operators order. Written as the bulk role, for every tenant at once, by operators' doors alone.
CREATE TABLE orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    act text NOT NULL CHECK (act IN ('retry', 'skip', 'cancel', 'resend', 'restate')),
    service text,
    actors text[] NOT NULL,
    subject text,
    change text,
    from_seq bigint,
    to_seq bigint,
    flow_id uuid,
    org_id uuid,
    reason text NOT NULL,
    by text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX orders_at ON orders (at, id);
SELECT model_table('orders', readable => 'false');
SELECT publish_table('orders', stream => 'global:orders', private => '{reason,by,at}');

-- What is parked has a name for operators, and says which change it fails on.
ALTER TABLE troubles ADD COLUMN id uuid NOT NULL GENERATED ALWAYS AS (md5(service || ' ' || actor || ' ' || about)::uuid) STORED, ADD COLUMN change text;
CREATE UNIQUE INDEX troubles_id ON troubles (id);
CREATE INDEX troubles_since ON troubles (since, id);

-- All that a flow wrote, what came of an order, and what operators did.
DROP INDEX history_flow;
CREATE INDEX history_flow ON history (flow_id);
CREATE INDEX history_order ON history ((facts ->> 'order_id')) WHERE facts ->> 'order_id' IS NOT NULL;
CREATE INDEX history_operators ON history (at) WHERE by = 'operator';
