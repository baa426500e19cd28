-- Since when each reaction acts: what happened before that is no concern of it.
CREATE TABLE activations (reaction text PRIMARY KEY, since timestamptz NOT NULL);
SELECT shared_table('activations', 'kept by the kit; names of reactions only');

-- Notes the reactions that are new. Those with which a service starts for the first time act on all that happened since its schema
-- was made: on a new mesh every schema is made before any service writes.
CREATE FUNCTION activate(names text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO activations (reaction, since)
    SELECT n, CASE WHEN EXISTS (SELECT FROM activations) THEN now() ELSE (SELECT min(at) FROM migrations) END FROM unnest(names) n
    ON CONFLICT DO NOTHING
$$;
