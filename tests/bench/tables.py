"""The tables that the benchmarks of the bus write and react to, beside those of real services and under their roles.

``org`` owns ``bench_rows``, published like any of its tables. ``billing``, ``provisioning`` and ``notification`` keep what
their reactions make of it: ``bench_effects``, published as most effects are, and ``bench_kept``, which does not travel.
"""

import asyncpg

from deploy.stack import Mesh

SOURCE = "org"
REACTING = ("billing", "provisioning", "notification")

_ROWS = """
CREATE TABLE bench_rows (org_id uuid NOT NULL DEFAULT tenant(), id bigint GENERATED ALWAYS AS IDENTITY, run int NOT NULL, PRIMARY KEY (org_id, id));
SELECT tenant_table('bench_rows');
SELECT publish_table('bench_rows', stream => 'org');
CREATE TABLE bench_plain (org_id uuid NOT NULL DEFAULT tenant(), id bigint GENERATED ALWAYS AS IDENTITY, run int NOT NULL, PRIMARY KEY (org_id, id));
SELECT tenant_table('bench_plain');
-- A writing transaction as the kit makes it, in one round trip: the load costs what it must and no more.
CREATE FUNCTION bench_write(org uuid, run int, rows int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    PERFORM enter(org, NULL, '{"by": "bench", "flow_id": "01990000-0000-7000-8000-000000000000"}', ARRAY['org:' || org]);
    INSERT INTO bench_rows (run) SELECT bench_write.run FROM generate_series(1, rows);
END $$;
CREATE FUNCTION bench_start(org uuid, run int) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE made bigint; BEGIN
    PERFORM enter(org, NULL, '{"by": "bench"}', ARRAY['org:' || org]);
    INSERT INTO bench_rows (run) VALUES (bench_start.run) RETURNING id INTO made;
    RETURN made;
END $$;
CREATE FUNCTION bench_write_plain(org uuid, run int, rows int DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    PERFORM enter(org, NULL, '{"by": "bench", "flow_id": "01990000-0000-7000-8000-000000000000"}', '{}');
    INSERT INTO bench_plain (run) SELECT bench_write_plain.run FROM generate_series(1, rows);
END $$;
"""
_EFFECTS = """
CREATE TABLE bench_effects (org_id uuid NOT NULL DEFAULT tenant(), id bigint NOT NULL, run int NOT NULL, PRIMARY KEY (org_id, id));
SELECT tenant_table('bench_effects');
SELECT publish_table('bench_effects', stream => 'org');
CREATE TABLE bench_kept (org_id uuid NOT NULL DEFAULT tenant(), id bigint NOT NULL, run int NOT NULL, PRIMARY KEY (org_id, id));
SELECT tenant_table('bench_kept');
CREATE TABLE bench_rows (org_id uuid NOT NULL, id bigint NOT NULL, run int NOT NULL, PRIMARY KEY (org_id, id));
SELECT replica_table('bench_rows', source => 'org.bench_rows');
"""
_TELL = """
CREATE FUNCTION bench_tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('bench', NEW.id::text); RETURN NULL; END $$;
CREATE TRIGGER bench_tell AFTER INSERT ON bench_kept FOR EACH ROW EXECUTE FUNCTION bench_tell();
"""
"""The end of a flow is told to whoever waits for it."""


async def make(mesh: Mesh) -> None:
    await _run(mesh, SOURCE, _ROWS)
    for service in REACTING:
        await _run(mesh, service, _EFFECTS)
    await _run(mesh, REACTING[-1], _TELL)


async def _run(mesh: Mesh, service: str, sql: str) -> None:
    connection = await asyncpg.connect(mesh.databases.url(service, "owner"))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
