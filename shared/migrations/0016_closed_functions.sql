-- The application role writes the log through its tables alone: it makes no record by hand, and does not say how long the log is kept.
REVOKE EXECUTE ON FUNCTION append_change(text, text, text, jsonb, jsonb), log_change() FROM PUBLIC;

ALTER FUNCTION keep_changes(interval) RENAME TO keep_changes_for;
REVOKE EXECUTE ON FUNCTION keep_changes_for(interval) FROM PUBLIC;
CREATE FUNCTION keep_changes() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$ SELECT keep_changes_for() $$;
