"""Every door that users rely on is there, with the answer they rely on."""

import pytest

from deploy.contracts import services
from deploy.contracts.openapi import document

DOORS = (
    "user POST /users 202",
    "user POST /users/verify 204",
    "user POST /verifications 202",
    "user POST /sessions 201",
    "user POST /sessions/refresh 201",
    "user DELETE /sessions/current 204",
    "user GET /sessions 200",
    "user DELETE /sessions/{} 204",
    "user GET /me 200",
    "user PATCH /me 200",
    "user GET /users/{} 200",
    "user POST /me/api-keys 201",
    "user GET /me/api-keys 200",
    "user DELETE /me/api-keys/{} 204",
    "user POST /password-resets 202",
    "user POST /password-resets/confirm 204",
    "user GET /.well-known/jwks.json 200",
    "org POST /orgs 202",
    "org GET /orgs 200",
    "org GET /orgs/{} 200",
    "org PATCH /orgs/{} 200",
    "org POST /orgs/{}/suspend 202",
    "org POST /orgs/{}/resume 202",
    "org POST /orgs/{}/clock 202",
    "org POST /orgs/{}/invitations 202",
    "org GET /orgs/{}/invitations 200",
    "org DELETE /orgs/{}/invitations/{} 202",
    "org POST /invitations/{}/accept 202",
    "org GET /orgs/{}/members 200",
    "org PATCH /orgs/{}/members/{} 202",
    "org DELETE /orgs/{}/members/{} 202",
    "billing GET /plans 200",
    "billing GET /orgs/{}/subscription 200",
    "billing POST /orgs/{}/subscription 200",
    "notification GET /me/messages 200",
    "notification POST /me/messages/{}/read 204",
    "notification GET /orgs/{}/messages 200",
    "provisioning POST /orgs/{}/databases 202",
    "provisioning GET /orgs/{}/databases 200",
    "provisioning GET /orgs/{}/databases/{} 200",
    "provisioning PATCH /orgs/{}/databases/{} 202",
    "provisioning DELETE /orgs/{}/databases/{} 202",
    "provisioning POST /orgs/{}/databases/{}/undelete 202",
    "provisioning POST /orgs/{}/databases/{}/credentials 201",
    "console GET /flows/{} 200",
    "console GET /flows/{}/events 200",
    "console GET /orgs/{}/flows 200",
    "console GET /orgs/{}/audit 200",
    "console GET /flows 200",
)
EVERYWHERE = ("/healthz", "/readyz", "/metrics")


def _there(service: str) -> dict[tuple[str, str], set[str]]:
    """Method and path, whatever the names of its parameters, with the statuses it answers."""
    found = {}
    for path, item in document(service)["paths"].items():
        shape = "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
        for method, operation in item.items():
            found[method.upper(), shape] = set(operation["responses"])
    return found


@pytest.mark.parametrize("door", DOORS)
def test_the_door_is_there_and_answers_as_promised(door: str) -> None:
    service, method, path, status = door.split()
    assert status in _there(service)[method, path]


def test_every_call_that_starts_a_flow_says_which() -> None:
    for service in services():
        openapi = document(service)
        for path, item in openapi["paths"].items():
            for method, operation in item.items():
                if started := operation["responses"].get("202"):
                    name = started["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                    assert "flow_id" in openapi["components"]["schemas"][name]["required"], f"{service} {method} {path}"


@pytest.mark.parametrize("service", sorted({door.split()[0] for door in DOORS}))
def test_every_service_tells_how_it_is(service: str) -> None:
    assert all(("GET", path) in _there(service) for path in EVERYWHERE)
