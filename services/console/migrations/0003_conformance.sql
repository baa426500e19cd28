-- Where a flow went otherwise than it is defined.
ALTER TABLE flows ADD COLUMN deviations text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN flows.deviations IS 'kind: step. What a person has to look at, also when the flow is done.';
CREATE INDEX flows_deviating ON flows (started_at, id) WHERE deviations <> '{}';
