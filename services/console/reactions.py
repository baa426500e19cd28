"""What the console does when anything changes anywhere: it keeps the history, and works out the flows."""

from services.console import flows, history, sources, troubles
from shared.changes import Change
from shared.reactions import every_change
from shared.tx import Tx


@every_change
async def follow(tx: Tx, changes: list[Change]) -> None:
    told = [c for c in changes if history.is_told(c)]
    await sources.note(tx, changes)
    await history.keep(tx, told)
    about = await troubles.note(tx, changes)
    await flows.refold(tx, await flows.touched(tx, told, about))
