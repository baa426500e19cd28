"""Alarms: whether an alert's own expression is true of what the services export at this moment."""

import asyncio
import re
import time
from collections.abc import Iterator

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.state import CHECKOUT
from tests.faults.world import World

_RULES = CHECKOUT / "deploy" / "prometheus" / "alerts.yml"
_ABOVE = re.compile(r'max(?: by \(\w+\))? ?\((?P<metric>mesh_\w+)(?:\{(?P<label>\w+)="(?P<value>\w+)"\})?\) > (?P<limit>[\d.]+)')
"""The form of those that are asked for here: the greatest value of one metric is above a limit."""


async def is_raised(world: World, alert: str, within: float) -> None:
    """Waits until what the alert asks for is so; a surprise if it is not in time. How long it then has to be so is the rule's own test."""
    end = time.monotonic() + within
    while not await _is_true(world, _above(alert)):
        if time.monotonic() > end:
            world.surprise(f"the alert {alert} would not have been raised within {within:.0f} s")
            return
        await asyncio.sleep(0.5)


def _above(alert: str) -> re.Match[str]:
    rules = {rule["alert"]: rule["expr"] for group in yaml.safe_load(_RULES.read_text())["groups"] for rule in group["rules"]}
    found = _ABOVE.fullmatch(rules[alert])
    if found is None:
        raise LookupError(f"the expression of {alert} has another form: {rules[alert]}")
    return found


async def _is_true(world: World, above: re.Match[str]) -> bool:
    async with httpx.AsyncClient(timeout=5) as http:
        for service in world.lab.document["services"].values():
            try:
                text = (await http.get(f"{service['url']}/metrics")).text
            except httpx.HTTPError:
                continue
            if any(value > float(above["limit"]) for value in _values(text, above)):
                return True
    return False


def _values(text: str, of: re.Match[str]) -> Iterator[float]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == of["metric"] and (of["label"] is None or sample.labels.get(of["label"]) == of["value"]):
                yield sample.value
