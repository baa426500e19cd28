"""Refusals: what a rule says no with, from the named constraint in a migration to the problem a caller reads."""

import inspect
from typing import ClassVar


class Refused(Exception):
    """The request cannot be carried out as things stand.

    A subclass's docstring is its message: the first sentence says what is wrong, the others what to do next. ``status`` is the HTTP
    status it answers with, ``constraint`` the name of the database constraint or trigger error that means the same. A ``detail``
    given when raised is added to the message.
    """

    status: ClassVar[int] = 409
    constraint: ClassVar[str | None] = None
    retry_after: int | None = None
    """Seconds, where waiting helps; of the class, or of the one refusal."""
    keeps_effects: ClassVar[bool] = False
    """Commits what was written although the request is refused: a counted failure, a revoked family of tokens."""
    by_constraint: ClassVar[dict[str, type["Refused"]]] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or ""
        super().__init__(f"{self.message()} {self.detail}".strip())

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "constraint" in vars(cls) and cls.constraint:
            Refused.by_constraint[cls.constraint] = cls

    @classmethod
    def message(cls) -> str:
        return " ".join((inspect.getdoc(cls) or cls.__name__).split())

    @classmethod
    def code(cls) -> str:
        """The stable kebab-case name, the last part of the problem's ``type``."""
        return "".join(f"-{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("-")


class NotFound(Refused):
    """There is nothing here that you may see. Check the id, and that you are a member of the organization."""

    status = 404


class RowTooLarge(Refused):
    """The row is too large: a change record holds at most 256 kB. Make the fields shorter."""

    status = 422


class NotYet(Exception):
    """A reaction needs a row of another service that has not come yet: it is held and tried again."""
