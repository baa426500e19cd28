-- Keys that sign the tokens in mailed links. The public part travels, so that the user service can verify them.
CREATE TABLE link_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    public_key text NOT NULL,
    private_key text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT shared_table('link_keys', 'belongs to the service; the private part never travels');
SELECT publish_table('link_keys', stream => 'global:link_keys', private => '{private_key}');
