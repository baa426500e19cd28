"""Registers the connectors through Connect's REST interface, wherever Connect runs."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from schemas.feed import COMPACTED

_TEMPLATE = Path(__file__).with_name("changes.json")


def changes_connector(database: str, host: str, port: int, password: str) -> dict[str, str]:
    """The connector of one database: its change logs and the tenant feed. ``password`` may be a reference that Connect
    resolves through a ConfigProvider.

    It reads no snapshot, ever. Where the slot begins after what it read last, because another one had to be made, it goes on at the slot
    (``snapshot.on.data.error``) instead of failing for good: what lies between is missed by its numbers, and sent again.
    """
    values = {"{host}": host, "{port}": str(port), "{database}": database, "{password}": password}
    config: dict[str, str] = json.loads(_TEMPLATE.read_text(encoding="utf-8"))
    feed = {f"topic.creation.feed.{name}": value for name, value in COMPACTED.items()}
    return {field: _filled(text, values) for field, text in (config | feed).items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text


@dataclass(frozen=True)
class Registry:
    """Connect's REST interface. Every method raises ``requests.RequestException`` while Connect does not answer."""

    url: str
    user: str
    password: str

    def healthy(self) -> bool:
        """The worker has joined its group and read its topics. Without Kafka it would think about that for ten seconds."""
        try:
            return self._call("GET", "/health", timeout=2).ok
        except requests.RequestException:
            return False

    def ensure(self, name: str, config: Mapping[str, str]) -> bool:
        """Register the connector, or give it this configuration; true when something changed."""
        present = self._call("GET", f"/connectors/{name}/config")
        if present.ok and {**present.json(), "name": name} == {**config, "name": name}:
            return False
        self._call("PUT", f"/connectors/{name}/config", json=dict(config)).raise_for_status()
        return True

    def state(self, name: str) -> str:
        """``RUNNING`` when the connector and its task run; else the state of whichever does not, or ``MISSING``."""
        answer = self._call("GET", f"/connectors/{name}/status")
        if not answer.ok:
            return "MISSING"
        body = answer.json()
        states = [body["connector"]["state"], *(task["state"] for task in body["tasks"])]
        others = [state for state in states if state != "RUNNING"]
        return others[0] if others else ("RUNNING" if body["tasks"] else "UNASSIGNED")

    def await_running(self, name: str, timeout: float = 15) -> None:
        """:raises TimeoutError: when the connector is not running by then."""
        deadline = time.monotonic() + timeout
        while (state := self.state(name)) != "RUNNING":
            if time.monotonic() > deadline:
                raise TimeoutError(f"connector {name} is {state}: {self.trouble(name)}")
            time.sleep(0.05)

    def trouble(self, name: str) -> str:
        """The first line of what made its task fail."""
        tasks = self._call("GET", f"/connectors/{name}/status").json().get("tasks", [])
        return next((task["trace"].splitlines()[0] for task in tasks if task.get("trace")), "no error yet")

    def restart(self, name: str, *, only_failed: bool = False) -> None:
        """The connector with its tasks, or those of them that failed."""
        parameters = {"includeTasks": "true", "onlyFailed": str(only_failed).lower()}
        self._call("POST", f"/connectors/{name}/restart", params=parameters).raise_for_status()

    def forget_place(self, name: str, timeout: float = 30) -> None:
        """Has the connector go on where its slot says, not where it noted that it was.

        :raises TimeoutError: when it does not stop for that in time.
        """
        self._call("PUT", f"/connectors/{name}/stop").raise_for_status()
        deadline = time.monotonic() + timeout
        while not (forgotten := self._call("DELETE", f"/connectors/{name}/offsets")).ok:
            if time.monotonic() > deadline:
                raise TimeoutError(f"connector {name} does not forget its place: {forgotten.text}")
            time.sleep(0.2)
        self._call("PUT", f"/connectors/{name}/resume").raise_for_status()

    def _call(self, method: str, path: str, timeout: float = 10, **options: Any) -> requests.Response:
        return requests.request(method, self.url + path, auth=(self.user, self.password), timeout=timeout, **options)
