"""What notification and the user service agree on about the tokens in mailed links.

A token is a JWT (EdDSA) whose ``kid`` names a :class:`schemas.notification.LinkKey`, with ``aud`` :data:`AUDIENCE`, ``jti`` the id
of the :class:`schemas.user.LinkRequest`, ``sub`` its person, ``purpose`` its purpose and ``exp`` its end. It is in the mail alone.
"""

ALGORITHM = "EdDSA"
AUDIENCE = "saas-mesh links"
