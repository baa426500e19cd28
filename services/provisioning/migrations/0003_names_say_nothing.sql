-- Every tenant of a server can read the names of its databases and roles. So a new one is called after its id alone; one that is there keeps its
-- name, which its data plane and its users know. It was generated from the customer's name for it before.
ALTER TABLE databases ALTER COLUMN dbname DROP EXPRESSION;

CREATE FUNCTION name_after_the_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.dbname := 'db_' || left(replace(NEW.id::text, '-', ''), 20);
    RETURN NEW;
END $$;
CREATE TRIGGER name_after_the_id BEFORE INSERT ON databases FOR EACH ROW EXECUTE FUNCTION name_after_the_id();
COMMENT ON COLUMN databases.dbname IS 'On the server: unique there, never a reserved name, and short enough for what the agent appends to it. It never changes.';
