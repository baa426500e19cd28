"""The last known good desired state on disk: the agent starts from it while the control plane is away."""

import json
import os
import time
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from services.agent.desired import Tenant
from shared.log import log


class Disk:
    """One file a tenant, replaced atomically; mode 0600, for it holds verifiers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tenants = folder / "tenants"
        self._tenants.mkdir(mode=0o700, parents=True, exist_ok=True)

    def next_epoch(self) -> int:
        """The number of this start, higher than that of every start before, on a new disk too.

        Written before it is used. On a disk that cannot be written the clock alone makes it higher: not to serve would be worse.
        """
        path = self._folder / "epoch.json"
        last = int(json.loads(path.read_bytes())["epoch"]) if path.exists() else 0
        epoch = max(last + 1, int(time.time()))
        try:
            _replace(path, json.dumps({"epoch": epoch}).encode())
        except OSError as error:
            log.error("the number of this start cannot be written, it is that of the clock: %s", error)
        return epoch

    def load(self) -> list[Tenant]:
        """All tenants that can be read. One that cannot is logged; Kafka still has its truth."""
        tenants = []
        for path in sorted(self._tenants.glob("*.json")):
            try:
                tenants.append(Tenant.model_validate_json(path.read_bytes()))
            except (ValidationError, OSError) as error:
                log.error("the state of a tenant on disk cannot be read, it will come from Kafka: %s: %s", path.name, type(error).__name__)
        return tenants

    def save(self, org_id: UUID, content: bytes) -> None:
        """Blocks until the content would survive a loss of power; call it off the event loop."""
        _replace(self._tenants / f"{org_id}.json", content)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
