"""What each process of the mesh is told: exactly the variables it needs, its secrets among them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.databases import Databases
from deploy.kafka import Broker
from deploy.plan import HOST, Plan
from deploy.postgres import data_plane
from deploy.state import State
from schemas.feed import agent_user


def tracing_variables() -> dict[str, str]:
    """The standard variables of OpenTelemetry, as the caller has them."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


@dataclass(frozen=True)
class Environment:
    state: State
    plan: Plan
    tracing: Mapping[str, str] = field(default_factory=tracing_variables)

    def service(self, process: str) -> dict[str, str]:
        """Of one process of a service: ``org``, or ``org-2`` for a replica."""
        service = process.partition("-")[0]
        return {
            "DATABASE_URL": Databases(self.state, self.plan).url(service, "app"),
            "HTTP_HOST": self.plan.listen,
            "HTTP_PORT": str(self.plan.ports[process]),
            "CONSOLE_URL": self._public("console"),
            "PUBLIC_URL": self._public("console"),
            "SIGNING_SECRET": self.state.secret("signing"),
            "OPERATOR_TOKEN_HASH": self.state.digest("operator"),
            **self._kafka(service),
            **self._of_one_service(service),
            **self.tracing,
        }

    def agent(self, plane: str) -> dict[str, str]:
        server = data_plane(self.state, self.plan, plane)
        return {
            "DATA_PLANE_ID": plane,
            "DATA_PLANE_URL": server.url(),
            "DATA_PLANE_HOST": HOST,
            "DATA_PLANE_PORT": str(server.port),
            "AGENT_STATE_DIR": str(self.state.root / "agents" / plane),
            **self._kafka(agent_user(plane)),
            **self.tracing,
        }

    def mail(self) -> dict[str, str]:
        return {
            "INBOX_DIR": str(self.state.root / "mail"),
            "INBOX_HOST": self.plan.listen,
            "INBOX_SMTP_PORT": str(self.plan.ports["smtp"]),
            "INBOX_HTTP_PORT": str(self.plan.ports["mail"]),
        }

    def stripe(self) -> dict[str, str]:
        return {
            "STRIPE_DIR": str(self.state.root / "stripe"),
            "STRIPE_HOST": self.plan.listen,
            "STRIPE_PORT": str(self.plan.ports["stripe"]),
            "STRIPE_API_KEY": self.stripe_key,
        }

    def url(self, name: str) -> str:
        return f"http://{self.plan.address(name)}"

    def _public(self, service: str) -> str:
        """Where people come in: with a link, by the Location of their flow, or as a page tells them."""
        return f"http://{HOST}:{self.plan.ports[service]}"

    @property
    def operator_token(self) -> str:
        return self.state.secret("operator")

    @property
    def stripe_key(self) -> str:
        return f"sk_test_{self.state.secret('stripe')}"

    def _kafka(self, user: str) -> dict[str, str]:
        broker = Broker.of(self.state, self.plan)
        return {"KAFKA_BOOTSTRAP": broker.bootstrap, "KAFKA_USERNAME": user, "KAFKA_PASSWORD": broker.password(user)}

    def _of_one_service(self, service: str) -> dict[str, str]:
        if service == "notification":
            port = str(self.plan.ports["smtp"])
            return {"SMTP_HOST": self.plan.host("smtp"), "SMTP_PORT": port, "PROVISIONING_URL": self._public("provisioning")}
        if service == "billing":
            return {"STRIPE_API_KEY": self.stripe_key, "STRIPE_API_BASE": self.url("stripe")}
        if service == "console":
            return {"USER_URL": self._public("user"), "ORG_URL": self._public("org")}
        if service == "provisioning":
            return {"DATA_PLANES": ",".join(self.plan.data_planes)}
        return {}
