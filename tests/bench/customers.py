"""One customer signing up: from the request to a login into their own database."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx

from deploy.status import Document

PASSWORD = "a long and quiet river"
READY = "database ready"


@dataclass
class SignUp:
    """Milliseconds from the request until each thing was so; ``usable`` is what counts."""

    flow_id: str = ""
    reached: dict[str, float] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)


class Newcomer:
    """A person at the doors of a mesh."""

    def __init__(self, client: httpx.AsyncClient, document: Document) -> None:
        self._client = client
        self._urls = {name: service["url"] for name, service in document["services"].items()}
        self._headers: dict[str, str] = {}
        self._began = 0.0
        self.seen = SignUp()

    async def sign_up(self) -> SignUp:
        self._began = time.monotonic()
        email = f"ann.{uuid.uuid4().hex[:12]}@example.com"
        body = {"email": email, "password": PASSWORD, "name": "Ann", "organization": "Acme"}
        self.seen.flow_id = (await self._call("POST", "user", "/users", body))["flow_id"]
        self._reach("accepted")
        token = (await self._call("POST", "user", "/sessions", {"email": email, "password": PASSWORD}))["access_token"]
        self._headers["Authorization"] = f"Bearer {token}"
        self._reach("signed in")
        org = await self._database_ready()
        self._reach("ready seen")
        database = (await self._call("GET", "provisioning", f"/orgs/{org}/databases"))["items"][0]["id"]
        made = await self._call("POST", "provisioning", f"/orgs/{org}/databases/{database}/credentials")
        self._reach("credentials")
        await _log_in(made["dsn"])
        self._reach("usable")
        return self.seen

    async def whole_flow(self) -> dict[str, Any]:
        """With its steps, when it has ended."""
        return await self._call("GET", "console", f"/flows/{self.seen.flow_id}?wait=30")

    def _reach(self, what: str) -> None:
        self.seen.reached[what] = 1000 * (time.monotonic() - self._began)

    async def _call(self, method: str, service: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self._client.request(method, self._urls[service] + path, json=body, headers=self._headers)
        answer.raise_for_status()
        return dict(answer.json())

    async def _database_ready(self) -> str:
        """Follows the flow's events until the step is met; the organization's id."""
        url = f"{self._urls['console']}/flows/{self.seen.flow_id}/events"
        async with self._client.stream("GET", url, headers=self._headers) as events:
            events.raise_for_status()
            async for line in events.aiter_lines():
                flow = json.loads(line[5:]) if line.startswith("data:") else {}
                if any(step["name"] == READY and step["state"] == "met" for step in flow.get("steps", ())):
                    return str(flow["org_id"])
        raise RuntimeError("the flow's events ended before its database was ready")


async def _log_in(dsn: str, timeout: float = 10) -> None:  # noqa: ASYNC109 - handed on
    async with asyncio.timeout(timeout):
        while True:
            try:
                connection = await asyncpg.connect(dsn)
            except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
                await asyncio.sleep(0.005)
            else:
                await connection.fetchval("SELECT 1")
                await connection.close()
                return
