"""Rules of migrations: every table says who may see its rows."""

import re
from collections.abc import Iterator
from pathlib import PurePath

_CREATED = re.compile(r"^\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?\"?(\w+)\b(?!\"?\s+PARTITION\s+OF)", re.IGNORECASE | re.MULTILINE)
_CLOSERS = ("tenant_table", "person_table", "shared_table", "replica_table")
_OWN_CLOSER = re.compile(r"CREATE\s+FUNCTION\s+(\w+)\(\s*table_name\s+text[^$]*\$\$(.*?)\$\$", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")


def open_tables(path: PurePath, text: str) -> Iterator[str]:
    """Tables that nothing closes. ``text`` is all of a service's migrations.

    A service may have a function of its own beside the kit's four, when it forces row-level security.
    """
    sql = _COMMENT.sub("", text)
    own = [name for name, body in _OWN_CLOSER.findall(sql) if "FORCE ROW LEVEL SECURITY" in body]
    closers = "|".join((*_CLOSERS, *own))
    closed = set(re.findall(rf"\b(?:{closers})\(\s*'(\w+)'", sql, re.IGNORECASE))
    for names in re.findall(rf"\b(?:{closers})\(\s*t\b.*?unnest\('\{{([^}}]*)\}}'", sql, re.IGNORECASE | re.DOTALL):
        closed.update(re.findall(r"\w+", names))
    yield from (f"{path}: nobody says who may see the rows of {name}" for name in _CREATED.findall(sql) if name not in closed)
