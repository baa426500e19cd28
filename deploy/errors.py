"""The failure that every part of the deployment raises when a person has to do something."""


class MeshError(Exception):
    """What went wrong, and what to do next.

    ``hint`` is the next step, most often a command. ``code`` is the exit code of the ``mesh`` command.
    """

    def __init__(self, problem: str, hint: str = "", code: int = 1) -> None:
        super().__init__(f"{problem}\n  {hint}" if hint else problem)
        self.problem = problem
        self.hint = hint
        self.code = code
