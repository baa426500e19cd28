"""Copies compared with what they copy: replicas with their owners' tables, the console's history with every change log."""

from services.console.history import KIT_TABLES
from tests.faults.lab import Lab

_SHARED_COLUMNS = """
SELECT c.column_name FROM information_schema.columns c
JOIN information_schema.columns o ON o.table_schema = $3 AND o.table_name = $4 AND o.column_name = c.column_name
WHERE c.table_schema = $1 AND c.table_name = $2"""


async def unlike(lab: Lab) -> list[str]:
    """In words: each copy that differs from a rebuilt one."""
    found = []
    for service in lab.document["services"]:
        for r in await lab.rows(f'SELECT name, source FROM "{service}".replicas'):
            found += await _replica(lab, service, r["name"], *r["source"].split("."))
    return found + await _history(lab)


async def _replica(lab: Lab, service: str, name: str, owner: str, table: str) -> list[str]:
    names = [r["column_name"] for r in await lab.rows(_SHARED_COLUMNS, service, name, owner, table)]
    columns = ", ".join(f'"{n}"' for n in names)
    copy, original = f'SELECT {columns} FROM "{service}"."{name}"', f'SELECT {columns} FROM "{owner}"."{table}"'
    rows = await lab.rows(
        f"SELECT (SELECT count(*) FROM ({original} EXCEPT ALL {copy}) m) AS missing, (SELECT count(*) FROM ({copy} EXCEPT ALL {original}) e) AS extra"
    )
    missing, extra = rows[0]["missing"], rows[0]["extra"]
    return [f"{service}.{name}: {missing} rows of {owner}.{table} missing, {extra} of its own"] if missing or extra else []


async def _history(lab: Lab) -> list[str]:
    """The console has heard of every change of every service once, and of nothing else."""
    found = []
    for source in lab.document["services"]:
        rows = await lab.rows(
            f"""WITH told AS (SELECT DISTINCT '{source}/' || stream || '/' || (payload::json ->> 'epoch') || '.' || seq AS name
                              FROM "{source}".changes WHERE payload::json ->> 'table' <> ALL($1) AND payload::json ->> 'op' <> 'restate'),
                     heard AS (SELECT name FROM console.history WHERE name LIKE '{source}/%')
                SELECT (SELECT count(*) FROM told WHERE name NOT IN (SELECT name FROM heard)) AS missing,
                       (SELECT count(*) FROM heard WHERE name NOT IN (SELECT name FROM told)) AS extra""",
            list(KIT_TABLES),
        )
        if rows[0]["missing"] or rows[0]["extra"]:
            found.append(f"console.history of {source}: {rows[0]['missing']} missing, {rows[0]['extra']} of its own")
    return found
