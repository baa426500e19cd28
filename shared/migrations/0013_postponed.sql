-- What waits in Kafka is late and not lost: a reader that is behind comes to it by itself.
ALTER TABLE expected ADD COLUMN postponed_at timestamptz;
COMMENT ON COLUMN expected.postponed_at IS 'When a reader of this source was last seen to be behind: the grace begins anew.';
