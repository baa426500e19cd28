"""Where one mesh keeps what it knows: its folder with plan, secrets, logs and process records."""

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def cache_folder() -> Path:
    """The folder shared by all checkouts of this user: jars and class-data archives. ``MESH_CACHE`` overrides it."""
    override = os.environ.get("MESH_CACHE")
    if override:
        return Path(override).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saas-mesh"


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file as a whole, readable by its owner only unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(draft).chmod(mode)
    Path(draft).replace(path)


@dataclass(frozen=True)
class State:
    """The folder of one mesh. Two meshes on one machine differ in nothing but this folder and their ports."""

    root: Path

    @classmethod
    def default(cls) -> "State":
        return cls(Path(os.environ.get("MESH_STATE") or CHECKOUT / ".mesh").resolve())

    @property
    def key(self) -> str:
        """A short name of this folder, for what has to be kept outside of it."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:16]

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def progress(self) -> Path:
        """What the supervisor did since its start, a JSON object a line."""
        return self.root / "progress.jsonl"

    @property
    def kafka_data(self) -> Path:
        return self.root / "kafka"

    @property
    def postgres_data(self) -> Path:
        """Postgres refuses to run as root, and another user may neither enter a private checkout nor root's home:
        so as root its data lives outside of the state folder.
        """
        return Path("/var/lib/saas-mesh") / self.key if os.geteuid() == 0 else self.root / "postgres"

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        """Who runs under this name: pid and start time."""
        return self.root / "processes" / f"{name}.json"

    def hold(self, name: str) -> Path:
        """While this file exists the supervisor leaves the process down."""
        return self.root / "held" / name

    def rendered(self, name: str) -> Path:
        """A configuration file written for one process."""
        return self.root / "config" / name

    def ordered(self, name: str) -> Path:
        """This file tells the supervisor that the end of the process is wanted."""
        return self.scratch / f"{name}.ordered"

    @property
    def scratch(self) -> Path:
        """For files of a process that nobody needs after it."""
        return self.root / "tmp"

    def create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.log("x").parent, self.record("x").parent, self.hold("x").parent, self.rendered("x").parent, self.scratch):
            folder.mkdir(exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One ``up``, ``down`` or ``reset`` at a time."""
        self.create()
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def secret(self, name: str) -> str:
        """The password of that name: generated (192 bits) when first asked for, the same ever after."""
        self.create()
        path = self.root / "secrets.json"
        with (self.root / "secrets.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
            if name not in known:
                known[name] = secrets.token_urlsafe(24).replace("-", "x").replace("_", "y")
                write_atomically(path, json.dumps(known, indent=1))
            return known[name]

    def digest(self, name: str) -> str:
        """What is told to those who check the password of that name and need not know it: its SHA-256, hexadecimal."""
        return hashlib.sha256(self.secret(name).encode()).hexdigest()
