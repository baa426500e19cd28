"""Order: what a reaction wrote because of one stream's changes stands in the order of those changes."""

from tests.faults.lab import Lab

_WITNESSES = (
    ("notification", "messages", "insert"),
    ("provisioning", "tenants", "update"),
    ("provisioning", "grants", "update"),
    ("billing", "subscriptions", "insert"),
)
"""(service, table, op): each written by a reaction alone, so that its causes come in order for each kind of row."""

_STEPS_BACK = """
WITH effects AS (
    SELECT stream, seq, regexp_replace(r ->> 'cause', '[.][0-9]+$', '') AS cause, substring(r ->> 'cause' FROM '[0-9]+$')::bigint AS cause_seq,
           coalesce(r #>> '{after,template}', '') AS kind
    FROM (SELECT stream, seq, payload::jsonb AS r FROM "%s".changes WHERE NOT again) c
    WHERE r ->> 'table' = $1 AND r ->> 'op' = $2 AND r ->> 'cause' LIKE 'org/%%')
SELECT stream, seq, cause, cause_seq, before FROM (
    SELECT *, lag(cause_seq) OVER (PARTITION BY stream, cause, kind ORDER BY seq) AS before FROM effects) e
WHERE cause_seq < before"""


async def disorder(lab: Lab) -> list[str]:
    """In words: each effect that was written after one of a later cause."""
    found = []
    for service, table, op in _WITNESSES:
        rows = await lab.rows(_STEPS_BACK % service, table, op)
        found += [f"{service}.{table} {r['stream']}.{r['seq']}: because of {r['cause']}.{r['cause_seq']}, after one because of {r['before']}" for r in rows]
    return found
