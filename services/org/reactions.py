"""What the org service does when others change."""

from schemas.user import SignUp
from services.org import organizations
from shared.reactions import on
from shared.tx import Tx


@on(SignUp.inserted, writes=lambda sign_up: f"org:{organizations.id_from_sign_up(sign_up.user_id)}")
async def make_the_organization(tx: Tx, sign_up: SignUp) -> None:
    if sign_up.organization:
        await organizations.create(tx, sign_up.organization, sign_up.user_id, "sign_up")
