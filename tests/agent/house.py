"""The organization that most tests of the agent are about."""

from typing import Any

from tests.agent.world import Db, Member, Org, World


class House:
    """An organization with a database, its owner and a member, all ready."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.org = Org()
        self.db = Db(self.org)
        self.owner = Member(self.db, "owner")
        self.member = Member(self.db, "member")

    def state(self, resource: Any) -> str | None:
        observed = self.world.observed.get(resource)
        return observed.state if observed else None
