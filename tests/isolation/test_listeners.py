"""Every port of the mesh: nobody, and a wrong password, is refused at each."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from deploy.contracts import services
from deploy.plan import HOST
from tests.isolation import kafka
from tests.isolation.kafka import lets_in, login
from tests.mesh import TestMesh

pytestmark = pytest.mark.processes

FOR_ANYBODY = {
    "mail": "the inbox stands for the mail servers of the outside world",
    "smtp": "as any mail server takes mail for its own addresses from anybody",
}
"""Ports that ask for nobody, and why. Both belong to the local stack, not to the product."""


async def knock_at_a_service(mesh: TestMesh, name: str) -> None:
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{mesh.mesh.plan.ports[name]}") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic bWVzaDptZXNo"}):
            assert (await client.get("/lag", headers=headers)).status_code == 401
        assert (await client.get("/lag", headers=mesh.operator.headers)).status_code == 200


async def knock_at_stripe(mesh: TestMesh, name: str) -> None:
    key = mesh.mesh.environment.stripe_key
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{mesh.mesh.plan.ports[name]}") as client:
        for headers in ({}, {"Authorization": "Bearer sk_test_wrong"}):
            assert (await client.get("/v1/customers", headers=headers)).status_code == 401
        assert (await client.get("/v1/customers", headers={"Authorization": f"Bearer {key}"})).status_code == 200


async def knock_at_connect(mesh: TestMesh, name: str) -> None:
    connect = mesh.status["connect"]
    mesh_changes = "/connectors/mesh-changes"
    reading = ["/", "/connectors", mesh_changes, f"{mesh_changes}/config", f"{mesh_changes}/status", f"{mesh_changes}/offsets"]
    reading += ["/connector-plugins", "/admin/loggers", "/health"]
    changing = [("DELETE", mesh_changes), ("PUT", f"{mesh_changes}/pause"), ("PUT", f"{mesh_changes}/config"), ("POST", "/connectors")]
    workers_own = [("POST", f"{mesh_changes}/tasks"), ("PUT", f"{mesh_changes}/fence")]
    async with httpx.AsyncClient(base_url=connect["url"], headers={"Connection": "close"}) as client:  # it hangs up on a body that it refuses unread
        for auth in (None, httpx.BasicAuth(connect["username"], "wrong"), httpx.BasicAuth("admin", connect["password"])):
            for method, path in [*(("GET", path) for path in reading), *changing]:
                body = None if method == "GET" else {}
                assert (await client.request(method, path, auth=auth, json=body)).status_code == 401, f"{method} {path}"
            for method, path in workers_own:  # between workers: signed, not by password
                assert (await client.request(method, path, auth=auth, json=[])).status_code in (400, 401, 403), f"{method} {path}"
        right = httpx.BasicAuth(connect["username"], connect["password"])
        assert [(await client.get(path, auth=right)).status_code for path in reading] == [200] * len(reading)


async def knock_at_the_broker(mesh: TestMesh, name: str) -> None:
    port, broker = mesh.mesh.plan.ports[name], mesh.mesh.broker
    users = ["admin", *kafka.users(mesh)]
    right = await asyncio.gather(*(lets_in(port, **login(user, broker.password(user))) for user in users))
    assert all(right), right
    wrong = [login(user, f"{broker.password(user)}x") for user in users] + [login("nobody", broker.password("admin")), login("admin", "")]
    wrong += [login(user, broker.password(user), "PLAIN") for user in ("admin", "controller")]
    wrong += [login("controller", broker.password("controller")), {"security_protocol": "PLAINTEXT"}]
    assert not any(await asyncio.gather(*(lets_in(port, **identity) for identity in wrong)))


async def knock_at_the_controller(mesh: TestMesh, name: str) -> None:
    port, broker = mesh.mesh.plan.ports[name], mesh.mesh.broker
    assert await lets_in(port, **login("controller", broker.password("controller"), "PLAIN"))
    wrong = [login(user, broker.password(user), mechanism) for user in ("admin", *kafka.users(mesh)) for mechanism in ("PLAIN", "SCRAM-SHA-256")]
    wrong += [login("controller", "wrong", "PLAIN"), login("controller", broker.password("controller")), {"security_protocol": "PLAINTEXT"}]
    assert not any(await asyncio.gather(*(lets_in(port, **identity) for identity in wrong)))


async def knock_at_a_database(mesh: TestMesh, name: str) -> None:
    port = mesh.mesh.plan.ports[name]
    password = mesh.mesh.state.secret(f"{name}:postgres")
    assert await _enters(port, "postgres", password)
    assert await _enters(port, "postgres", password, replication="true")
    roles = [*(f"{s}_{kind}" for s in services() for kind in ("owner", "app", "replica")), "mesh_cdc", "nobody"]
    for user in ("postgres", *roles):
        wrong = [None, "", "wrong", *([password] if user != "postgres" else [])]
        let_in = await asyncio.gather(*(_enters(port, user, word) for word in wrong), _enters(port, user, "wrong", replication="true"))
        assert not any(let_in), f"{user}: {let_in}"


async def _enters(port: int, user: str, password: str | None, **settings: str) -> bool:
    try:
        connection = await asyncpg.connect(host=HOST, port=port, user=user, password=password, database="postgres", server_settings=settings, timeout=5)
    except asyncpg.InvalidAuthorizationSpecificationError:
        return False
    connection.terminate()
    return True


Knock = Callable[[TestMesh, str], Coroutine[Any, Any, None]]


def knock_for(name: str) -> Knock:
    own: dict[str, Knock] = {
        "kafka": knock_at_the_broker, "kafka-controller": knock_at_the_controller, "connect": knock_at_connect, "stripe": knock_at_stripe,
        "postgres": knock_at_a_database,
    }  # fmt: skip
    if name.startswith("dataplane-"):
        return knock_at_a_database
    return own.get(name, knock_at_a_service)


async def test_every_port_refuses_nobody_and_a_wrong_password(mesh: TestMesh) -> None:
    await asyncio.gather(*(knock_for(name)(mesh, name) for name in mesh.mesh.plan.ports.keys() - FOR_ANYBODY.keys()))


def test_no_process_listens_anywhere_else(mesh: TestMesh) -> None:
    """What a process opens beside its ports, or to other machines, would be a door that nobody looks after."""
    known = {(HOST, port) for port in mesh.mesh.plan.ports.values()}
    assert _listening(_pids(mesh.mesh.status())) == known


def _pids(part: Any) -> set[int]:
    """Of every part that a status document speaks of."""
    if isinstance(part, dict):
        return {pid for pid in (part.get("pid"),) if pid}.union(*map(_pids, part.values()))
    return set().union(*map(_pids, part)) if isinstance(part, list) else set()


def _listening(parts: set[int]) -> set[tuple[str, int]]:
    """Where these processes, and what they started, listen."""
    pids = parts.union(*({child.pid for child in psutil.Process(pid).children(recursive=True)} for pid in parts))
    heard = (one for one in psutil.net_connections("inet") if one.pid in pids and one.status == psutil.CONN_LISTEN)
    return {(one.laddr.ip.removeprefix("::ffff:"), one.laddr.port) for one in heard}


async def test_only_the_connector_reads_the_log_of_the_database(mesh: TestMesh) -> None:
    databases = mesh.mesh.databases
    for service in services():
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(databases.url(service, "app"), server_settings={"replication": "database"}, timeout=5)
    cdc = (
        databases.url("org", "app")
        .replace("org_app", "mesh_cdc")
        .replace(mesh.mesh.state.secret("postgres:org_app"), mesh.mesh.state.secret("postgres:mesh_cdc"))
    )
    connection = await asyncpg.connect(cdc, server_settings={"replication": "database"}, timeout=5)
    connection.terminate()
