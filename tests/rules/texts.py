"""Rules of any text file: words, length, and the shape of a service's folder."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

MOST_LINES = 400
CODE = (".py", ".sql")

_WORDS = {
    r"\b(TODO|FIXME|XXX|HACK)\b": "do it now, or open an issue",
    r"(?<![\w.:/}])/(work|root|home|Users|mnt)/\w": "a path of one machine",
}
_EXEMPT = ("uv.lock", "tests/rules/")  # this folder names what it forbids


def forbidden_words(path: PurePath, text: str) -> Iterator[str]:
    """A clone stands on its own: no unfinished notes, nothing that exists on one machine only."""
    if str(path).startswith(_EXEMPT):
        return
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, reason in _WORDS.items():
            if found := re.search(pattern, line):
                yield f"{path}:{number}: {found[0]!r}: {reason}"


def too_long(path: PurePath, text: str) -> Iterator[str]:
    """A file that does not fit into a head is two files."""
    lines = text.count("\n")
    if path.suffix in CODE and lines > MOST_LINES:
        yield f"{path}: {lines} lines, at most {MOST_LINES}: split it"


_EVERY = {"__init__.py", "main.py", "README.md"}
_WITH_TABLES = {"api.py", "migrations"}
_HEADINGS = ("Owns", "Does not own", "Publishes", "Reacts to")
_MAIN_LINES = 15


def misshapen(service: str, files: Iterable[PurePath], main: str, readme: str) -> Iterator[str]:
    """A service's folder has the layout that every other has. ``files`` are below ``services/<service>``."""
    parts = {f.parts[0] for f in files}
    at_the_data_plane = service == "agent"
    wanted = _EVERY if at_the_data_plane else _EVERY | _WITH_TABLES
    yield from (f"services/{service}: {missing} is missing" for missing in sorted(wanted - parts))
    if at_the_data_plane:
        return
    if len(main.splitlines()) > _MAIN_LINES:
        yield f"services/{service}/main.py: a service is its parts, put together in ten lines"
    if readme:
        yield from (f"services/{service}/README.md: it does not say '{h}'" for h in _HEADINGS if h.lower() not in readme.lower())
