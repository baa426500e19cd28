"""What the kit does around every door: rate limits, mistakes of ours, browsers, readiness."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator

import httpx
import orjson
import pytest
from fastapi import FastAPI

from shared.bus import Applier
from shared.http import limits, unit
from shared.http.callers import new_api_key
from shared.http.limits import Window
from shared.log import _Json
from shared.settings import settings
from shared.tx import Database
from tests.kit.conftest import Log, Probe, record
from tests.kit.doors import application, client


@pytest.fixture
async def app(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FastAPI]:
    """With narrow limits, and nothing counted yet."""
    for name, limit in (("", 3), ("_CALLER", 4), ("_ACCOUNT", 6), ("_LOOPBACK", 12)):
        monkeypatch.setenv(f"RATE_LIMIT{name}_PER_MINUTE", str(limit))
    monkeypatch.setattr(limits, "_window", Window())
    yield application(probe.database)
    settings.cache_clear()


async def key_of(probe: Probe, person: uuid.UUID) -> str:
    """An API key, as it comes from the user service."""
    secret = new_api_key(person)
    await keep_key(probe, person, secret)
    return secret


async def keep_key(probe: Probe, person: uuid.UUID, secret: str) -> None:
    await probe.admin.execute(
        "INSERT INTO probe.api_keys (id, user_id, secret_hash, scopes, state) VALUES (gen_random_uuid(), $1, $2, '{read}', 'active')",
        person, hashlib.sha256(secret.encode()).hexdigest(),
    )  # fmt: skip


async def answers(caller: httpx.AsyncClient, path: str, times: int) -> list[int]:
    return [(await caller.get(path)).status_code for _ in range(times)]


async def test_an_address_without_an_identity_is_let_through_so_often_and_told_how_long_to_wait(app: FastAPI) -> None:
    one, other = client(app, "203.0.113.1"), client(app, "203.0.113.2")
    assert await answers(one, "/open", 4) == [200, 200, 200, 429]
    refused = await one.get("/open")
    assert refused.json()["type"] == "/problems/too-many-requests"
    assert 0 < int(refused.headers["Retry-After"]) <= 20, "one of three a minute is free again"
    assert await answers(other, "/open", 1) == [200]


async def test_guessing_an_identity_counts_against_the_address(app: FastAPI) -> None:
    assert await answers(client(app, token="nonsense"), "/mine", 4) == [401, 401, 401, 429]


async def test_a_request_that_meets_a_table_as_it_is_migrated_is_carried_out_once_all_the_same(app: FastAPI, probe: Probe, log: Log) -> None:
    """What a pooled connection has planned before does not fit any more: Postgres refuses it in the middle of the transaction."""
    caller = client(app, "127.0.0.1")
    for when in ("before", "after"):
        effect = {"org_id": log.org, "value": 1}
        answers = await asyncio.gather(*(caller.post("/effects", json=effect) for _ in range(4)))
        assert [a.status_code for a in answers] == [201] * 4, when
        await probe.admin.execute("ALTER TABLE probe.effects ADD COLUMN IF NOT EXISTS later int")
    await probe.admin.execute("ALTER TABLE probe.effects DROP COLUMN later")
    assert (await caller.post("/effects", json=effect)).status_code == 201
    assert await probe.effects(log) == [1] * 9


async def test_a_request_that_gets_no_connection_in_time_is_told_to_come_again(
    app: FastAPI, probe: Probe, probe_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Postgres hangs: those who came first hold all connections until their statements are given up."""
    monkeypatch.setattr(unit, "_PATIENCE", 0.2)
    app.state.database = await Database.connect(probe_url, "probe", size=1)
    async with app.state.database.session(), asyncio.timeout(3):
        refused = await client(app).get("/open")
    assert (refused.status_code, refused.headers.get("Retry-After")) == (503, "1")
    assert (await client(app).get("/open")).status_code == 200
    await app.state.database.close()


def position(log: Log, seq: int) -> dict[str, str]:
    """The header of who has seen so many changes of another service."""
    return {"Mesh-Position": f"other/{log.stream}/{log.epoch}.{seq}"}


@pytest.fixture
async def reader(app: FastAPI, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> Applier:
    """The door's service reads the other one; those of this machine are not counted narrowly, and nobody waits for long."""
    for name, value in (("MESH_SERVICES", "other"), ("RATE_LIMIT_LOOPBACK_PER_MINUTE", "1000")):
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    monkeypatch.setattr(unit, "_POSITION_WAIT", 2.0)
    app.state.applier = await probe.applier(record)
    return app.state.applier


async def test_who_is_not_known_keeps_nobody_from_waiting_for_what_they_have_seen(app: FastAPI, reader: Applier, probe: Probe, log: Log) -> None:
    future, seen = position(Log(), 7), position(log, 1)
    async with asyncio.timeout(1):
        assert (await client(app).get("/open", headers=future)).status_code == 200, "nobody is kept waiting who need not be known"
        assert (await client(app).get("/mine", headers=future)).status_code == 401
    guessed = client(app, "127.0.0.1", new_api_key(uuid.uuid4()))
    guesses = [asyncio.create_task(guessed.get("/mine", headers=future)) for _ in range(120)]
    await asyncio.sleep(0.5)
    waiting = asyncio.create_task(client(app, "127.0.0.1", await key_of(probe, uuid.uuid4())).get("/mine", headers=seen))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await reader.apply([log.change(1)])
    assert (await waiting).status_code == 200
    assert {(await guess).status_code for guess in guesses} == {503}


async def test_guessing_a_key_counts_before_anything_is_waited_for(app: FastAPI, reader: Applier, log: Log) -> None:
    guessed = client(app, token=new_api_key(uuid.uuid4()))
    answers = await asyncio.gather(*(guessed.get("/mine", headers=position(log, 7)) for _ in range(4)))
    assert sorted(a.status_code for a in answers) == [429, 503, 503, 503]


async def test_a_key_that_was_made_or_revoked_before_what_the_caller_has_seen_is_known_or_refused(
    app: FastAPI, reader: Applier, probe: Probe, log: Log
) -> None:
    person = uuid.uuid4()
    made, revoked = new_api_key(person), await key_of(probe, person)
    waiting = [asyncio.create_task(client(app, "127.0.0.1", key).get("/mine", headers=position(log, 1))) for key in (made, revoked)]
    await asyncio.sleep(0.3)
    await probe.admin.execute("UPDATE probe.api_keys SET state = 'revoked' WHERE user_id = $1", person)
    await keep_key(probe, person, made)
    await reader.apply([log.change(1)])
    assert [(await answer).status_code for answer in waiting] == [200, 401]


async def test_a_caller_is_counted_for_itself_and_for_the_person_it_acts_for(app: FastAPI, probe: Probe) -> None:
    person = uuid.uuid4()
    one, two = [client(app, token=await key_of(probe, person)) for _ in range(2)]
    another = client(app, token=await key_of(probe, uuid.uuid4()))
    assert await answers(client(app), "/open", 4) == [200, 200, 200, 429], "the address is counted apart"
    assert await answers(one, "/both", 5) == [200] * 4 + [429], "a key's own limit"
    assert await answers(two, "/mine", 3) == [200, 200, 429], "both keys together"
    assert await answers(another, "/mine", 1) == [200]


async def test_requests_of_this_machine_have_a_limit_of_their_own(app: FastAPI) -> None:
    assert await answers(client(app, "127.0.0.1"), "/open", 13) == [200] * 12 + [429]
    assert await answers(client(app, "::1"), "/open", 4) == [200] * 4


def test_a_load_test_on_this_machine_gets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.cache_clear()
    window, limit = Window(clock=lambda: 7.0), settings().rate_limit_loopback_per_minute
    assert limit >= 5_000 * 60
    assert not any(window.count("loopback", limit) for _ in range(50_000)), "all in one moment"


def test_who_waits_as_long_as_told_is_let_through() -> None:
    now = 100.0
    window = Window(clock=lambda: now)
    assert [window.count("one", 4) for _ in range(4)] == [0.0] * 4
    wait = window.count("one", 4)
    assert 0 < wait <= 15
    now += wait - 0.1
    assert window.count("one", 4) > 0
    now += 0.1
    assert window.count("one", 4) == 0
    now += 60
    assert [window.count("one", 4) > 0 for _ in range(5)] == [False] * 4 + [True], "after a quiet minute all is free again"


async def test_a_mistake_of_ours_is_a_problem_without_a_stack_and_its_line_names_what_was_done(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with caplog.at_level(logging.ERROR, "mesh"):
        caplog.handler.setFormatter(_Json("probe"))
        answer = await client(app).get("/broken", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"] != ""
    assert "a mistake of ours" not in answer.text
    line = orjson.loads(caplog.text)
    assert (line["service"], line["level"], line["trace_id"]) == ("probe", "error", trace)
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert "RuntimeError: a mistake of ours" in line["stack"]


async def test_browsers_of_a_configured_origin_are_let_in_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", '["https://app.example"]')
    caller = client(application())
    allowed = await caller.get("/healthz", headers={"Origin": "https://app.example"})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
    refused = await caller.get("/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in refused.headers
    settings.cache_clear()


async def test_a_service_that_cannot_serve_says_so_and_why() -> None:
    app = application()
    reason: list[str | None] = ["the database does not answer", None]

    async def not_ready() -> str | None:
        return reason.pop(0)

    app.state.ready = not_ready
    first, then = [await client(app).get("/readyz") for _ in range(2)]
    assert (first.status_code, first.json()["ready"], first.json()["reason"]) == (503, False, "the database does not answer")
    assert (then.status_code, then.json()["ready"]) == (200, True)
