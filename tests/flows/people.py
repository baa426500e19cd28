"""What the people of the flow tests do, as they would do it: through doors, mails and their own database logins."""

import asyncio
import re
from typing import Any

import asyncpg

from tests.mesh import Customer, TestMesh, eventually

_TOKEN = re.compile(r"\?token=([\w.-]+)")


def finished(who: Customer, flow_id: str) -> dict[str, Any]:
    """The flow, done. What waits for a timer may be told before the console hears that its time has come."""

    def seen() -> dict[str, Any] | None:
        answer = who.get("console", f"/flows/{flow_id}?wait=40")
        assert answer.status_code == 200, answer.text
        flow: dict[str, Any] = answer.json()
        return flow if flow["state"] != "waiting_timer" else None

    flow = eventually(seen, timeout=40, what="the end of the flow")
    assert flow["state"] == "done", flow
    return flow


def token_of(mesh: TestMesh, email: str, about: str) -> str:
    """The token in the newest mail to an address whose subject speaks of something."""
    mail = eventually(lambda: mesh.mails(email, about)[0], what=f"a mail to {email} about {about}")
    found = _TOKEN.search(mail["text"])
    assert found, mail["text"]
    return found[1]


def verify(mesh: TestMesh, who: Customer) -> None:
    """Follows the link in the mail."""
    answer = who.post("user", "/users/verify", {"token": token_of(mesh, who.email, "verify")})
    assert answer.status_code == 204, answer.text


def ready_database(who: Customer) -> dict[str, Any]:
    """The first database of their organization, ready."""
    databases = f"/orgs/{who.org_id}/databases"
    return eventually(lambda: [d for d in who.get("provisioning", databases).json()["items"] if d["state"] == "ready"][0], timeout=30)  # noqa: RUF015 - IndexError looks again


def credentials(who: Customer, org_id: str, database_id: str) -> str:
    """Own credentials, as a DSN; the login works when its flow is done."""
    made = who.post("provisioning", f"/orgs/{org_id}/databases/{database_id}/credentials")
    assert made.status_code == 201, made.text
    dsn: str = made.json()["dsn"]
    eventually(lambda: may_log_in(dsn), what="a login that works")
    return dsn


def execute(dsn: str, *statements: str) -> Any:
    """Runs the statements; the value of the last."""

    async def run() -> Any:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


def may_log_in(dsn: str) -> bool:
    try:
        return bool(execute(dsn, "SELECT 1") == 1)
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidPasswordError,
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.TooManyConnectionsError,
        asyncpg.PostgresConnectionError,  # let in, and ended at once
        asyncpg.AdminShutdownError,
    ):
        return False


def introduce(*people: Customer) -> None:
    """Everybody has seen what the others wrote: what they would know from talking to each other."""
    seen = dict.fromkeys(token for p in people for token in p.headers.get("Mesh-Position", "").split(", ") if token)
    for p in people:
        p.headers["Mesh-Position"] = ", ".join(seen)
