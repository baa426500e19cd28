-- A link that nobody followed in time ends the flow that it belongs to.
ALTER TABLE link_requests DROP CONSTRAINT link_requests_state_check;
ALTER TABLE link_requests ADD CONSTRAINT link_requests_state_check CHECK (state IN ('open', 'used', 'expired'));
