"""Isolation: a service that has named no tenant sees nobody's rows."""

from tests.faults.lab import Lab

_TENANT_TABLES = """
SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = $1 AND c.column_name = 'org_id' AND t.table_type = 'BASE TABLE'
AND NOT EXISTS (SELECT FROM "%s".shared_tables s WHERE s.name = c.table_name)"""


async def mixed(lab: Lab) -> list[str]:
    """In words: each table whose rows are seen without a tenant."""
    found = []
    for service in lab.document["services"]:
        names = [r["table_name"] for r in await lab.rows(_TENANT_TABLES % service, service)]
        counts = ", ".join(f'(SELECT count(*) FROM "{service}"."{name}") AS "{name}"' for name in names)
        for r in await lab.rows(f"SELECT {counts}", url=lab.mesh.databases.url(service, "app")):
            found += [f"{service}.{name}: {count} rows are seen without a tenant" for name, count in r.items() if count]
    return found
