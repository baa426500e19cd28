-- A person reads what they were told in every organization and marks it read; only what belongs to no organization is theirs to write.
DROP POLICY person ON messages;
CREATE POLICY person ON messages USING (user_id = (SELECT person()) AND org_id IS NULL) WITH CHECK (user_id = (SELECT person()) AND org_id IS NULL);
CREATE POLICY recipient ON messages FOR SELECT USING (user_id = (SELECT person()));
CREATE POLICY read ON messages FOR UPDATE USING (user_id = (SELECT person())) WITH CHECK (user_id = (SELECT person()));

-- Whose a message is never changes.
DO $$ BEGIN
    EXECUTE format('REVOKE UPDATE ON messages FROM %I', current_schema || '_app');
    EXECUTE format('GRANT UPDATE (state, attempts, error, sent_at, read_at) ON messages TO %I', current_schema || '_app');
END $$;
