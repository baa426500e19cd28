"""What is really on the server: read by two set-based queries, whether for one tenant or for all."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

import asyncpg

from services.agent.server import Server

SPARE = "mesh_spare_"
_MARK = re.compile(r"^mesh:([0-9a-f-]{36})/([0-9a-f-]{36})(:group)?$")


def mark(org_id: UUID, resource: UUID, *, group: bool = False) -> str:
    """The comment by which the agent knows its own databases and roles; it never touches one without it."""
    return f"mesh:{org_id}/{resource}" + (":group" if group else "")


@dataclass(frozen=True)
class Owner:
    """Whose a marked database or role is."""

    org_id: UUID
    resource: UUID
    group: bool


def _owner(comment: str | None) -> Owner | None:
    found = _MARK.match(comment or "")
    return Owner(UUID(found[1]), UUID(found[2]), bool(found[3])) if found else None


@dataclass(frozen=True)
class ActualDatabase:
    name: str
    owner: Owner | None
    allows_connections: bool
    connection_limit: int
    closed_to_public: bool
    open_to_groups: bool
    """Both group roles exist and may connect."""
    sessions: int


@dataclass(frozen=True)
class ActualRole:
    name: str
    owner: Owner | None
    can_login: bool
    password: str | None
    privileged: bool
    """Any of superuser, create database, create role, replication, bypass of row security, no inheritance, an expiry, a limit."""
    groups: frozenset[str]
    role_settings: frozenset[tuple[str, str]]
    """(database, role) of each ``ALTER ROLE … IN DATABASE … SET role``."""
    sessions: int


@dataclass(frozen=True)
class Actual:
    """Databases and roles by name."""

    databases: dict[str, ActualDatabase] = field(default_factory=dict)
    roles: dict[str, ActualRole] = field(default_factory=dict)

    @cached_property
    def _databases_by_org(self) -> dict[UUID, list[ActualDatabase]]:
        return _by_org(self.databases.values())

    @cached_property
    def _roles_by_org(self) -> dict[UUID, list[ActualRole]]:
        return _by_org(self.roles.values())

    @property
    def owners(self) -> set[Owner]:
        return {owner for found in self.databases.values() if (owner := found.owner)} | {owner for found in self.roles.values() if (owner := found.owner)}

    def databases_of(self, org_id: UUID, resource: UUID | None = None) -> list[ActualDatabase]:
        return [found for found in self._databases_by_org.get(org_id, []) if found.owner and resource in (None, found.owner.resource)]

    def logins_of(self, org_id: UUID, resource: UUID | None = None) -> list[ActualRole]:
        return [role for role in self._roles_of(org_id, resource) if role.owner and not role.owner.group]

    def groups_of(self, org_id: UUID, resource: UUID) -> list[ActualRole]:
        return [role for role in self._roles_of(org_id, resource) if role.owner and role.owner.group]

    def _roles_of(self, org_id: UUID, resource: UUID | None) -> list[ActualRole]:
        return [found for found in self._roles_by_org.get(org_id, []) if found.owner and resource in (None, found.owner.resource)]


def _by_org(found: Iterable[Any]) -> dict[UUID, list[Any]]:
    by_org: dict[UUID, list[Any]] = defaultdict(list)
    for one in found:
        if one.owner:
            by_org[one.owner.org_id].append(one)
    return by_org


_DATABASES = """
    SELECT d.datname AS name, c.description AS comment, d.datallowconn AS allows_connections, d.datconnlimit AS connection_limit,
           NOT has_database_privilege('public', d.oid, 'CONNECT') AS closed_to_public,
           (SELECT count(*) = 2 FROM pg_roles g WHERE g.rolname IN (d.datname || '_admin', d.datname || '_member')
                AND has_database_privilege(g.oid, d.oid, 'CONNECT')) AS open_to_groups,
           (SELECT count(*) FROM pg_stat_activity a
             WHERE a.datid = d.oid AND a.backend_type = 'client backend' AND a.usesysid <> 10
               AND a.usename <> current_user) AS sessions
      FROM pg_database d
      LEFT JOIN pg_shdescription c ON c.objoid = d.oid AND c.classoid = 'pg_database'::regclass
     WHERE $1::text IS NULL OR c.description LIKE $1 || '%' OR d.datname = ANY($2::text[])"""

_ROLES = """
    WITH wanted AS (
        SELECT r.*, c.description AS comment FROM pg_authid r
          LEFT JOIN pg_shdescription c ON c.objoid = r.oid AND c.classoid = 'pg_authid'::regclass
         WHERE $1::text IS NULL OR c.description LIKE $1 || '%' OR r.rolname = ANY($2::text[]))
    SELECT r.rolname AS name, r.comment, r.rolcanlogin AS can_login, r.rolpassword AS password,
           r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls OR NOT r.rolinherit
               OR r.rolconnlimit <> -1 OR coalesce(r.rolvaliduntil, 'infinity') < 'infinity' AS privileged,
           ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                  WHERE m.member = r.oid AND m.inherit_option AND m.set_option) AS groups,
           ARRAY(SELECT ARRAY[d.datname::text, substr(one, 6)] FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase,
                        unnest(s.setconfig) one WHERE s.setrole = r.oid AND one LIKE 'role=%') AS role_settings,
           (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid) AS sessions
      FROM wanted r"""


async def read(server: Server, org_id: UUID | None = None, names: Iterable[str] = ()) -> Actual:
    """Everything marked as one tenant's, and whoever else has one of the names it wants; without a tenant, everything."""
    prefix, wanted = (f"mesh:{org_id}/" if org_id else None), list(names)
    async with server.admin() as connection:
        databases = await connection.fetch(_DATABASES, prefix, wanted)
        roles = await connection.fetch(_ROLES, prefix, wanted)
    return Actual(
        {row["name"]: ActualDatabase(owner=_owner(row["comment"]), **_without_comment(row)) for row in databases},
        {row["name"]: _role(row) for row in roles},
    )


def _role(row: asyncpg.Record) -> ActualRole:
    sets = {"groups": frozenset(row["groups"]), "role_settings": frozenset(map(tuple, row["role_settings"]))}
    return ActualRole(owner=_owner(row["comment"]), **(_without_comment(row) | sets))


def _without_comment(row: asyncpg.Record) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "comment"}
