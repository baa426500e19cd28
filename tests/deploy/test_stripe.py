"""The local Stripe keeps the promises that a caller of the real one relies on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from deploy.plan import HOST
from tests.deploy.doors import free_ports, serving

KEY = {"Authorization": "Bearer sk_test_right"}


def variables(folder: Path, port: int) -> dict[str, str]:
    return {"STRIPE_DIR": str(folder), "STRIPE_HOST": HOST, "STRIPE_PORT": str(port), "STRIPE_API_KEY": "sk_test_right"}


def create(url: str, key: str, **data: str) -> requests.Response:
    return requests.post(f"{url}/v1/customers", data=data, headers={**KEY, "Idempotency-Key": key}, timeout=10)


def customers(url: str) -> list[Any]:
    found: list[Any] = requests.get(f"{url}/v1/customers", headers=KEY, timeout=5).json()["data"]
    return found


def test_the_same_key_gets_the_same_answer_also_after_a_kill(tmp_path: Path) -> None:
    port = free_ports()["stripe"]
    with serving("deploy.stripe", variables(tmp_path, port), port) as url:
        first = create(url, "k1", email="ada@example.com")
        again = create(url, "k1", email="ada@example.com")
        assert first.status_code == again.status_code == 200
        assert first.json() == again.json()
        assert again.headers["Idempotent-Replayed"] == "true"
    with serving("deploy.stripe", variables(tmp_path, port), port) as url:
        assert create(url, "k1", email="ada@example.com").json() == first.json()
        assert [customer["id"] for customer in customers(url)] == [first.json()["id"]]


def test_the_same_key_at_the_same_time_makes_one_customer(tmp_path: Path) -> None:
    port = free_ports()["stripe"]
    with serving("deploy.stripe", variables(tmp_path, port), port) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(url, "k1", email="ada@example.com").json()["id"], range(8)))
        assert len(set(answers)) == 1
        assert len(customers(url)) == 1


def test_a_key_that_was_used_for_another_request_is_refused(tmp_path: Path) -> None:
    port = free_ports()["stripe"]
    with serving("deploy.stripe", variables(tmp_path, port), port) as url:
        create(url, "k1", email="ada@example.com")
        refused = create(url, "k1", email="bob@example.com")
        assert refused.status_code == 400
        assert refused.json()["error"]["type"] == "idempotency_error"


def test_customers_are_found_by_metadata(tmp_path: Path) -> None:
    port = free_ports()["stripe"]
    with serving("deploy.stripe", variables(tmp_path, port), port) as url:
        wanted = create(url, "k1", **{"metadata[mesh_id]": "7"}).json()["id"]
        create(url, "k2", **{"metadata[mesh_id]": "77"})
        found = requests.get(f"{url}/v1/customers/search", params={"query": "metadata['mesh_id']:'7'"}, headers=KEY, timeout=5)
        assert [customer["id"] for customer in found.json()["data"]] == [wanted]


def test_only_the_key_of_this_mesh_opens_it(tmp_path: Path) -> None:
    port = free_ports()["stripe"]
    with serving("deploy.stripe", variables(tmp_path, port), port) as url:
        assert requests.get(f"{url}/v1/customers", headers=KEY, timeout=5).status_code == 200
        assert requests.get(f"{url}/v1/customers", auth=("sk_test_right", ""), timeout=5).status_code == 200
        for headers in ({}, {"Authorization": "Bearer sk_test_wrong"}, {"Authorization": "Basic !"}, {"Authorization": "Bearer"}):
            assert requests.get(f"{url}/v1/customers", headers=headers, timeout=5).status_code == 401
        assert requests.delete(f"{url}/_config/data", headers=KEY, timeout=5).status_code == 404
