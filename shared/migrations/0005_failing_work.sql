-- Workers and timers that failed and are tried again. Published, so that the flow that waits for one of them says so.
CREATE TABLE failing_work (
    kind text NOT NULL,
    target text NOT NULL,
    id uuid NOT NULL,
    worker text NOT NULL,
    attempt int NOT NULL,
    error text NOT NULL,
    flow_id uuid,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, target, id)
);
SELECT publish_table('failing_work', stream => 'row', key => 'target');
SELECT shared_table('failing_work', 'kept by the kit; holds no business rows');
