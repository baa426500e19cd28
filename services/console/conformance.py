"""Conformance: where a flow went otherwise than it is defined."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from services.console.folding import Fold
from services.console.history import Seen

Kind = Literal["skipped", "repeated", "after the end"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def deviations(fold: Fold, own: Sequence[Seen]) -> list[str]:
    """``<kind>: <step>`` for each, given the flow's own changes; what an operator skipped or cancelled is no deviation.

    *skipped*: the flow is done, and a step of it was never met. *repeated*: a step was met by two rows, an effect that is there twice.
    *after the end*: the flow was done, and met a step once more.
    """
    return sorted({f"{kind}: {step}" for kind, step in (*_skipped(fold), *_repeated(fold, own), *_after_the_end(fold, own))})


def kind_of(deviation: str) -> str:
    return deviation.partition(":")[0]


def _skipped(fold: Fold) -> Iterable[tuple[Kind, str]]:
    if fold.end and fold.end[0] == "done":
        for step, met in zip(fold.flow.steps, fold.met, strict=True):
            if met is None and not step.optional and step.by not in fold.left_out:
                yield "skipped", step.name


def _repeated(fold: Fold, own: Sequence[Seen]) -> Iterable[tuple[Kind, str]]:
    for step, met in zip(fold.flow.steps, fold.met, strict=True):
        if met and not step.optional and any(seen.ref != met.ref and step.pattern.matches(seen.change) for seen in own):
            yield "repeated", step.name


def _after_the_end(fold: Fold, own: Sequence[Seen]) -> Iterable[tuple[Kind, str]]:
    if fold.end and fold.end[0] == "done":
        for seen in own:
            if seen.at > fold.end[1]:
                yield from (("after the end", step.name) for step in fold.flow.steps if not step.optional and step.pattern.matches(seen.change))
