"""All flows: every :class:`shared.flows.Flow` in a module of this package, without being named anywhere else."""

import importlib
import pkgutil

from shared.flows import Flow


def _collect() -> dict[tuple[str, int], Flow]:
    found: dict[tuple[str, int], Flow] = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, Flow) and found.setdefault((value.name, value.version), value) is not value:
                raise ValueError(f"two flows are called {value.name}, version {value.version}")
    return found


FLOWS = _collect()
"""By name and version: a flow in flight keeps the version it started with."""

CURRENT = tuple(f for f in FLOWS.values() if f.version == max(v for n, v in FLOWS if n == f.name))
"""The newest version of each: what a new flow starts as."""
