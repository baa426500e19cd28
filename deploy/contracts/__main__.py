"""``python -m deploy.contracts schemas|openapi|docs|compose|asyncapi``: writes what is checked in (and build/asyncapi.json)."""

import sys
from collections.abc import Callable
from pathlib import Path

from deploy.contracts import ROOT, as_json, asyncapi, catalogs, compose, locked, openapi

BUILD = ROOT / "build"

WRITERS: dict[str, Callable[[], dict[Path, str]]] = {
    "schemas": locked.files,
    "openapi": openapi.files,
    "docs": catalogs.files,
    "compose": compose.files,
    "asyncapi": lambda: {BUILD / "asyncapi.json": as_json(asyncapi.document())},
}


def main(arguments: list[str]) -> int:
    """Writes what is asked for and names each file that changed. 2 for a word it does not know."""
    if not arguments or not set(arguments) <= WRITERS.keys():
        sys.stderr.write(f"{__doc__}\n")
        return 2
    for word in arguments:
        for path, text in WRITERS[word]().items():
            path.parent.mkdir(exist_ok=True)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
                sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
