"""Fetches the locked jars of Kafka, Connect and Debezium into the cache that all checkouts share."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from jgo.maven import MavenContext

from deploy.errors import MeshError
from deploy.state import cache_folder

LOCK = Path(__file__).with_name("jars.lock")
_AT_ONCE = 16
_TRIES = 3

Progress = Callable[[int, int], None]
"""Called with (files here, files needed)."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Unique in one folder, also for artifacts of the same name in two groups."""
        return f"{self.group}.{self.artifact}-{self.version}.jar"

    @property
    def path(self) -> Path:
        return cache_folder() / "jars" / self.file_name


def locked_jars() -> list[Jar]:
    """The lock's jars, in its order: the class path is built from it, and archives depend on that order."""
    return [_parse(line) for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]


def _parse(line: str) -> Jar:
    name, sha256, size = line.split()
    group, artifact, version = name.split(":")
    return Jar(group, artifact, version, sha256, int(size))


def class_path() -> str:
    return ":".join(str(jar.path) for jar in locked_jars())


def missing_jars() -> list[Jar]:
    """What is not in the cache. A file there was checked before it got its name, so its size is looked at only."""
    return [jar for jar in locked_jars() if not (jar.path.exists() and jar.path.stat().st_size == jar.size)]


def fetch(progress: Progress = lambda *_: None) -> None:
    """Bring every missing jar, many at once. A file gets its final name only when its checksum is right, so several
    checkouts may fetch at the same time.
    """
    missing = missing_jars()
    if not missing:
        return
    folder = cache_folder() / "jars"
    folder.mkdir(parents=True, exist_ok=True)
    needed = len(locked_jars())
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="fetch-") as draft, ThreadPoolExecutor(_AT_ONCE) as pool:
        context = MavenContext(repo_cache=Path(draft), timeout=30)
        fetched = [pool.submit(_fetch_one, context, jar) for jar in missing]
        for done, result in enumerate(as_completed(fetched), start=1):
            result.result()
            progress(needed - len(missing) + done, needed)


def _fetch_one(context: MavenContext, jar: Jar) -> None:
    path = _download(context, jar)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        problem = f"{jar.artifact} {jar.version} has the checksum {found}, but the lock says {jar.sha256}."
        raise MeshError(problem, "Do not use this mirror: what it serves is not what was locked.")
    path.replace(jar.path)


def _download(context: MavenContext, jar: Jar) -> Path:
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact(packaging="jar")
    problem: Exception | None = None
    for _ in range(_TRIES):
        try:
            return Path(artifact.resolve())
        except Exception as error:  # noqa: BLE001 - the client raises whatever its transport does; the last one is told
            problem = error
            shutil.rmtree(Path(context.repo_cache) / artifact.component.path_prefix, ignore_errors=True)
    hint = "Check the network and run the command again; what was fetched is kept."
    raise MeshError(f"{jar.artifact} {jar.version} could not be fetched from Maven Central: {problem}", hint) from problem
