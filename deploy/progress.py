"""How a start is told while it happens."""

import time

from rich.markup import escape

from deploy import terminal
from deploy.stack import Step


class Reporter:
    """Prints each step of a start as it happens."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, step: Step) -> None:
        if step.state == "working":
            self._working(step)
        elif step.step != "up":
            detail = f"  {escape(step.detail)}" if step.detail else ""
            seconds = f"{step.seconds:5.1f} s" if step.state == "ready" else " " * 7
            terminal.line(f"  {step.step:<18} {seconds}  {terminal.word(step.state)}{detail}")

    def _working(self, step: Step) -> None:
        """At most a line a second."""
        if time.monotonic() - self._last > 1:
            self._last = time.monotonic()
            terminal.line(f"  {step.step:<18} {escape(step.detail)}")
