"""The files the rules of the house are about: what git has or would take."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(p.name for p in (ROOT / "services").iterdir() if p.is_dir() and any(p.glob("*.py")))
"""Every service's folder, the agent's included."""


@cache
def all_files() -> tuple[PurePath, ...]:
    """Paths below the root, new files included, ignored ones not."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=False, text=True)
    names = listed.stdout.split("\0") if listed.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not _hidden(p)]
    return tuple(PurePath(n) for n in sorted(names) if n and (ROOT / n).is_file())


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts)


def texts(*suffixes: str) -> Iterator[tuple[PurePath, str]]:
    """Each file with one of these suffixes (all text files, when none is named) and what it says."""
    for path in all_files():
        if not suffixes or path.suffix in suffixes:
            try:
                yield path, (ROOT / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
