"""The difference between what is desired of one tenant and what is on the server, as steps that end it. No input, no output."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from schemas.feed import DatabaseResource, Login
from services.agent import logins
from services.agent.catalog import Actual, ActualDatabase, ActualRole
from services.agent.databases import LONGEST_NAME, groups
from services.agent.desired import Held, Tenant

Kind = Literal["organization", "database", "login"]


@dataclass(frozen=True)
class _Step:
    resource: UUID


@dataclass(frozen=True)
class ShutLogins(_Step):
    usernames: tuple[str, ...]


@dataclass(frozen=True)
class DropLogin(_Step):
    username: str


@dataclass(frozen=True)
class DropDatabase(_Step):
    names: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True)
class CreateDatabase(_Step):
    name: str
    connection_limit: int


@dataclass(frozen=True)
class AllowDatabase(_Step):
    name: str
    connection_limit: int


@dataclass(frozen=True)
class RepairDatabase(_Step):
    name: str


@dataclass(frozen=True)
class RefuseDatabase(_Step):
    name: str


@dataclass(frozen=True)
class CreateLogin(_Step):
    login: Login
    database: str


@dataclass(frozen=True)
class ChangeLogin(_Step):
    login: Login
    database: str
    actual: ActualRole


@dataclass(frozen=True)
class Blocked(_Step):
    """Nothing this agent may do ends the difference; ``error`` says who can."""

    error: str


@dataclass(frozen=True)
class Waits(_Step):
    """What it stands on has not come yet: nothing to do, nothing to report."""


Step = (
    ShutLogins | DropLogin | DropDatabase | CreateDatabase | AllowDatabase | RepairDatabase | RefuseDatabase
    | CreateLogin | ChangeLogin | Blocked | Waits
)  # fmt: skip

TAKEN = "the name {} is taken by something on the server that is not this resource's: rename or remove that, or choose another name"
LOST = "the database {} was made here and is gone from the server: restore it under that name, or delete it and create a new one"
RENAMED = "the database is on the server as {}: a database cannot be renamed, delete it and create another"
TOO_LONG = "the database name {} is longer than {} bytes"
NOT_SCRAM = "the verifier is not one of SCRAM-SHA-256: create new credentials"


def names(tenant: Tenant) -> set[str]:
    """Every name that the tenant wants on the server, for itself or for a group role."""
    databases = {database.desired.name for _, database in tenant.databases}
    return databases | {group for name in databases for group in groups(name)} | {login.desired.username for _, login in tenant.logins}


def plan(tenant: Tenant, actual: Actual) -> list[Step]:
    """Steps in order: what takes access away comes first."""
    return [
        *_shut(tenant, actual),
        *_dropped_logins(tenant, actual),
        *(step for held, database in tenant.databases for step in _database(tenant, held, database, actual)),
        *_buried_databases(tenant, actual),
        *(step for held, login in tenant.logins if tenant.open and not held.removed for step in _login(tenant, login, actual)),
    ]


def _shut(tenant: Tenant, actual: Actual) -> list[Step]:
    if tenant.open:
        return []
    usernames = tuple(role.name for role in actual.logins_of(tenant.org_id) if role.can_login or role.sessions)
    return [ShutLogins(tenant.org_id, usernames)] if usernames else []


def _dropped_logins(tenant: Tenant, actual: Actual) -> list[Step]:
    unwanted = {login.resource for held, login in tenant.logins if held.removed} | (tenant.graves.keys() - tenant.resources.keys())
    return [DropLogin(resource, role.name) for resource in unwanted for role in actual.logins_of(tenant.org_id, resource)]


def _buried_databases(tenant: Tenant, actual: Actual) -> list[Step]:
    return [step for resource in tenant.graves.keys() - tenant.resources.keys() for step in _drop(tenant, resource, actual)]


def _drop(tenant: Tenant, resource: UUID, actual: Actual) -> list[Step]:
    databases = tuple(found.name for found in actual.databases_of(tenant.org_id, resource))
    theirs = {role.name for role in actual.groups_of(tenant.org_id, resource)}
    members = {role.name for role in actual.logins_of(tenant.org_id) if role.groups & theirs}
    return [DropDatabase(resource, databases, (*sorted(members), *sorted(theirs)))] if databases or theirs else []


def _database(tenant: Tenant, held: Held, database: DatabaseResource, actual: Actual) -> list[Step]:
    resource, desired = database.resource, database.desired
    if held.removed:
        return _drop(tenant, resource, actual)
    if not tenant.assigned:
        return []
    found = actual.databases_of(tenant.org_id, resource)
    if not found:
        return [] if desired.state == "deleted" else [_create(database, actual, made=held.made)]
    if found[0].name != desired.name:
        return [Blocked(resource, RENAMED.format(found[0].name))]
    return _closed(resource, found[0]) if desired.state == "deleted" else _opened(resource, found[0], desired.connection_limit)


def _create(database: DatabaseResource, actual: Actual, *, made: bool) -> Step:
    resource, name = database.resource, database.desired.name
    if made:
        return Blocked(resource, LOST.format(name))
    if len(name.encode()) > LONGEST_NAME:
        return Blocked(resource, TOO_LONG.format(name, LONGEST_NAME))
    taken = [name] if name in actual.databases else [role for role in groups(name) if role in actual.roles]
    if taken:
        return Blocked(resource, TAKEN.format(taken[0]))
    return CreateDatabase(resource, name, database.desired.connection_limit)


def _closed(resource: UUID, found: ActualDatabase) -> list[Step]:
    shut = not found.allows_connections and found.connection_limit == 0 and not found.sessions
    return [] if shut else [RefuseDatabase(resource, found.name)]


def _opened(resource: UUID, found: ActualDatabase, connection_limit: int) -> list[Step]:
    steps: list[Step] = []
    if not found.allows_connections or found.connection_limit != connection_limit:
        steps.append(AllowDatabase(resource, found.name, connection_limit))
    if not (found.closed_to_public and found.open_to_groups):
        steps.append(RepairDatabase(resource, found.name))
    return steps


def _login(tenant: Tenant, login: Login, actual: Actual) -> list[Step]:
    resource, desired = login.resource, login.desired
    database = next((one for held, one in tenant.databases if one.resource == desired.database and not held.removed), None)
    if database is None:
        return [Waits(resource)]
    if desired.verifier is not None and not desired.verifier.startswith("SCRAM-SHA-256$"):
        return [Blocked(resource, NOT_SCRAM)]
    mine = actual.logins_of(tenant.org_id, resource)
    role = actual.roles.get(desired.username)
    if role is not None and role not in mine:
        return [Blocked(resource, TAKEN.format(desired.username))]
    steps: list[Step] = [DropLogin(resource, former.name) for former in mine if former is not role]
    if role is None:
        steps.append(CreateLogin(resource, login, database.desired.name))
    elif not logins.as_wanted(role, login, database.desired.name):
        steps.append(ChangeLogin(resource, login, database.desired.name, role))
    return steps
