"""Members' logins on the server: enabled, shut, dropped.

A login acts as its database's group role from its first statement on, so what it makes belongs to the organization.
"""

from collections.abc import Iterable
from datetime import datetime

from schemas.feed import Login, Role
from services.agent.catalog import ActualRole, mark
from services.agent.databases import groups
from services.agent.server import Server, literal, quoted

PLAIN = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT CONNECTION LIMIT -1 VALID UNTIL 'infinity'"


def group_of(database: str, role: Role) -> str:
    admin, member = groups(database)
    return member if role == "member" else admin


def as_wanted(actual: ActualRole, login: Login, database: str) -> bool:
    """Without a verifier the role is there with its grants, and cannot log in."""
    group, verifier = group_of(database, login.desired.role), login.desired.verifier
    return (
        actual.can_login == (verifier is not None)
        and (actual.can_login or not actual.sessions)
        and actual.password == verifier
        and not actual.privileged
        and actual.groups == {group}
        and actual.role_settings == {(database, group)}
    )


async def create(server: Server, login: Login, database: str) -> None:
    """One transaction: the login is there and works, or is not there."""
    username = quoted(login.desired.username)
    comment = literal(mark(login.org_id, login.resource))
    async with server.admin() as connection:
        await connection.execute(f"CREATE ROLE {username} NOLOGIN; COMMENT ON ROLE {username} IS {comment};" + _enabled(login, database))


async def change(server: Server, actual: ActualRole, login: Login, database: str) -> datetime:
    """Make an existing login as wanted.

    It is shut first, and its sessions end: they began with a former password or role. Whoever is killed in between leaves it
    shut, which is seen as a difference by the next one, who then does all of it again. Answers as :func:`shut` does.
    """
    at = await shut(server, [actual.name])
    username, group = quoted(actual.name), group_of(database, login.desired.role)
    left = "".join(f"REVOKE {quoted(other)} FROM {username};" for other in sorted(actual.groups - {group}))
    left += "".join(f"ALTER ROLE {username} IN DATABASE {quoted(other)} RESET role;" for other, _ in actual.role_settings)
    async with server.admin() as connection:
        await connection.execute(left + _enabled(login, database))
    return at


def _enabled(login: Login, database: str) -> str:
    username, group = quoted(login.desired.username), group_of(database, login.desired.role)
    verifier = login.desired.verifier
    access = "NOLOGIN PASSWORD NULL" if verifier is None else f"LOGIN PASSWORD {literal(verifier)}"
    return (
        f"GRANT {quoted(group)} TO {username} WITH ADMIN FALSE, INHERIT TRUE, SET TRUE;"
        f"ALTER ROLE {username} IN DATABASE {quoted(database)} SET role = {literal(group)};"
        f"ALTER ROLE {username} {PLAIN} {access}"
    )


async def shut(server: Server, usernames: Iterable[str]) -> datetime:
    """No new session, and the running ones end. The answer is the server's time at which it was shut."""
    names = sorted(usernames)
    async with server.admin() as connection:
        await connection.execute("".join(f"ALTER ROLE {quoted(name)} NOLOGIN;" for name in names))
        at: datetime = await connection.fetchval("SELECT clock_timestamp()")
    await end_older(server, names, at)
    return at


async def end_older(server: Server, usernames: Iterable[str], started_before: datetime) -> None:
    """End sessions that began earlier.

    Worth a second time a little after :func:`shut`: who was signing in just then shows up as a session only afterwards.
    """
    async with server.admin() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = ANY($1) AND backend_start < $2",
            sorted(usernames),
            started_before,
        )


async def drop(server: Server, username: str) -> None:
    """End a login for good; what it made stays and belongs to the organization's role."""
    await shut(server, [username])
    async with server.admin() as connection:
        holding = await connection.fetch(
            "SELECT DISTINCT d.datname, d.datallowconn FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid"
            " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = (SELECT oid FROM pg_roles WHERE rolname = $1)",
            username,
        )
    for row in holding:
        await _hand_over(server, username, row["datname"], open_already=row["datallowconn"])
    async with server.admin() as connection:
        await connection.execute(f"DROP ROLE IF EXISTS {quoted(username)}")


async def _hand_over(server: Server, username: str, database: str, *, open_already: bool) -> None:
    """A closed database has connection limit 0: opened for a moment, it lets in nobody but the administrator."""
    switch = f"ALTER DATABASE {quoted(database)} ALLOW_CONNECTIONS "
    if not open_already:
        await _execute(server, switch + "true")
    try:
        async with server.inside(database) as connection:
            await connection.execute(f"REASSIGN OWNED BY {quoted(username)} TO {quoted(groups(database)[0])}; DROP OWNED BY {quoted(username)}")
    finally:
        if not open_already:
            await _execute(server, switch + "false")


async def _execute(server: Server, sql: str) -> None:
    async with server.admin() as connection:
        await connection.execute(sql)
