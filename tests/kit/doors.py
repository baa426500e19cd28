"""The doors of the scratch service, served inside the test: for what the kit does around every door."""

from typing import Any
from uuid import UUID

import httpx
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from shared.http.app import create_app
from shared.http.callers import OpenTx, Person, PersonTx
from shared.http.routing import new_router
from shared.settings import settings
from shared.tx import Database


class Effect(BaseModel):
    org_id: UUID
    value: int


def _router() -> APIRouter:
    router = new_router()

    @router.get("/open")
    async def open_to_all(tx: OpenTx) -> dict[str, Any]:
        return {"one": await tx.value("SELECT 1")}

    @router.get("/mine")
    async def mine(caller: Person, tx: PersonTx) -> dict[str, Any]:
        return {"me": str(caller.user_id)}

    @router.get("/both")
    async def both(caller: Person, tx: OpenTx) -> dict[str, Any]:
        return {"me": str(caller.user_id)}

    @router.post("/effects", status_code=201)
    async def have_an_effect(body: Effect, tx: OpenTx) -> Effect:
        await tx.enter(f"org:{body.org_id}")
        return await tx.one(Effect, "INSERT INTO effects (value) VALUES ($1) RETURNING *", body.value)

    @router.get("/broken")
    async def broken(tx: OpenTx) -> None:
        raise RuntimeError("a mistake of ours")

    return router


def application(database: Database | None = None) -> FastAPI:
    """As the settings are now."""
    settings.cache_clear()
    app = create_app("probe", _router())
    app.state.database = database
    return app


def client(app: FastAPI, address: str = "203.0.113.1", token: str | None = None) -> httpx.AsyncClient:
    """Somebody who calls from an address."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 50_000))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=transport, base_url="http://probe", headers=headers)
