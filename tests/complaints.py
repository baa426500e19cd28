"""What the processes of a mesh complained about, for whoever reads that a run failed and finds the mesh gone."""

from collections import Counter
from pathlib import Path

import orjson

NEWEST = 12


def complaints(logs: Path) -> list[str]:
    """Of each process the newest kinds of warnings and errors, with how often each came; of those that log plainly, the last lines."""
    lines = []
    for log in sorted(logs.glob("*.log")):
        written = log.read_text(errors="replace").splitlines()[-5000:]
        said = [what for line in written if (what := _complaint(line))]
        often = Counter(said)
        newest = list(dict.fromkeys(reversed(said)))[:NEWEST]
        lines += [f"{log.stem}: {often[what]} x {what}" for what in reversed(newest)]
    return lines


def _complaint(line: str) -> str | None:
    """Without its time, so that the same one counts as the same."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return line.partition(" ")[2][:300] if any(word in line for word in ("ERROR", "FATAL", "PANIC")) else None
    if not isinstance(entry, dict) or entry.get("level") not in ("warning", "error", "critical"):
        return None
    return " ".join(str(entry[name]) for name in ("message", "reaction", "task", "error", "reason") if name in entry)[:300]
