"""A service that has lost its position check: what the oracle must notice. ``python -m tests.faults.careless <service>``."""

import runpy
import sys

from shared.changes import Change
from shared.positions import Progress


def _takes_everything(self: Progress, change: Change, *, jump: bool) -> None:
    self.ready.append(change)
    self.seq, self.moved = max(self.seq, change.seq), True


if __name__ == "__main__":
    Progress.offer = _takes_everything  # type: ignore[method-assign]
    runpy.run_module(f"services.{sys.argv[1]}.main", run_name="__main__")
