"""Passwords take long to hash and to compare: nobody else waits for that."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from services.user import api, passwords
from shared.http.app import create_app
from shared.tx import Database
from tests.flows.people import token_of
from tests.mesh import PASSWORD, Customer, TestMesh
from tests.notification.mailbox import RESET
from tests.user.test_links import NEW_PASSWORD


@asynccontextmanager
async def doors(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """The user service's, in this process."""
    app = create_app("user", api.router)
    app.state.database = database
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://user") as client:
        yield client


@pytest.fixture
async def database(mesh: TestMesh) -> AsyncIterator[Database]:
    """One connection to it, and no more."""
    database = await Database.connect(mesh.mesh.databases.url("user", "app"), "user", 1)
    yield database
    await database.close()


async def reset_token(mesh: TestMesh, person: Customer) -> str:
    assert mesh.anyone.post("user", "/password-resets", {"email": person.email}).status_code == 202
    return await asyncio.to_thread(token_of, mesh, person.email, RESET)


async def test_nobody_waits_for_a_connection_while_a_password_is_hashed(
    mesh: TestMesh, person: Customer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, token = passwords.hashed, await reset_token(mesh, person)

    async def hash_it(password: str) -> str:
        async with asyncio.timeout(5), database.session():
            return await hashed(password)

    async def compare_it(_password: str, _password_hash: str | None) -> bool:
        async with asyncio.timeout(5), database.session():
            return False

    monkeypatch.setattr(passwords, "hashed", hash_it)
    monkeypatch.setattr(passwords, "matches", compare_it)
    async with doors(database) as client:
        for path, body, status in (
            ("/users", {"email": f"new.{person.email}", "password": PASSWORD, "name": "Bob"}, 202),
            ("/sessions", {"email": person.email, "password": PASSWORD}, 401),
            ("/password-resets/confirm", {"token": token, "password": NEW_PASSWORD}, 204),
        ):
            answer = await client.post(path, json=body)
            assert answer.status_code == status, f"{path} {answer.text}"


async def test_a_password_that_is_replaced_while_it_is_compared_opens_nothing(
    mesh: TestMesh, person: Customer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"token": await reset_token(mesh, person), "password": NEW_PASSWORD}

    async def replaced_meanwhile(_password: str, _password_hash: str | None) -> bool:
        answer = await asyncio.to_thread(mesh.anyone.post, "user", "/password-resets/confirm", body)
        return bool(answer.status_code == 204)

    monkeypatch.setattr(passwords, "matches", replaced_meanwhile)
    async with doors(database) as client:
        refused = await client.post("/sessions", json={"email": person.email, "password": PASSWORD})
    assert (refused.status_code, refused.json()["type"]) == (401, "/problems/wrong-password")
    assert await asyncio.to_thread(mesh.rows, 'SELECT id FROM "user".sessions WHERE user_id = $1 AND ended_at IS NULL', uuid.UUID(person.user_id)) == []


def test_a_sign_in_is_answered_from_memory_whatever_became_of_the_password(mesh: TestMesh, person: Customer) -> None:
    body, key = {"email": person.email, "password": PASSWORD}, {"Idempotency-Key": person.email}
    first = mesh.anyone.post("user", "/sessions", body, headers=key)
    wrong = [mesh.anyone.post("user", "/sessions", body | {"password": "not this one"}).status_code for _ in range(6)]
    again = mesh.anyone.post("user", "/sessions", body, headers=key)
    assert (first.status_code, wrong[-1], again.status_code) == (201, 429, 201)
    assert again.json() == first.json()
