"""Runs the Kafka Connect worker: its REST interface wants a password, and the passwords it uses stay in files."""

from dataclasses import dataclass
from pathlib import Path

from deploy import java
from deploy.connectors import Registry
from deploy.kafka import Broker, properties
from deploy.plan import HOST, Plan
from deploy.process import Command
from deploy.state import State, write_atomically

NAME = "connect"
USER = "mesh"
_TEMPLATE = Path(__file__).parent / "config" / "connect.properties"
_LOGIN = """KafkaConnect {{
    org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule required file="{file}";
}};
"""


@dataclass(frozen=True)
class Worker:
    state: State
    broker: Broker
    port: int

    @classmethod
    def of(cls, state: State, plan: Plan) -> "Worker":
        return cls(state, Broker.of(state, plan), plan.ports["connect"])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def password(self) -> str:
        """Of the REST interface; its user is ``mesh``."""
        return self.state.secret("connect:rest")

    @property
    def registry(self) -> Registry:
        return Registry(self.url, USER, self.password)

    @property
    def _secrets(self) -> Path:
        return self.state.rendered("connectors.secrets")

    def secret_reference(self, name: str) -> str:
        """What a connector's configuration says instead of a password; only the worker resolves it."""
        return f"${{file:{self._secrets}:{name}}}"

    def prepare(self) -> None:
        folder = self.state.root
        (folder / "plugins").mkdir(exist_ok=True)
        write_atomically(self._secrets, f"mesh_cdc={self.state.secret('postgres:mesh_cdc')}\n")
        write_atomically(self.state.rendered("connect.users"), f"{USER}={self.password}\n")
        login = _LOGIN.format(file=str(self.state.rendered("connect.users")).replace("\\", "\\\\").replace('"', '\\"'))
        write_atomically(self.state.rendered("connect.login"), login)
        values: dict[str, str | int] = {
            "bootstrap": self.broker.bootstrap, "host": HOST, "port": self.port, "secrets": str(self._secrets),
            "plugins": str(folder / "plugins"), "password": self.broker.password("connect"),
        }  # fmt: skip
        write_atomically(self.state.rendered("connect.properties"), properties(_TEMPLATE, values))

    def command(self) -> Command:
        login = f"-Djava.security.auth.login.config={self.state.rendered('connect.login')}"
        options = ["-Xms128m", "-Xmx512m", login]
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        argv = java.command(self.state, NAME, main, options, [str(self.state.rendered("connect.properties"))])
        return Command(NAME, argv, java.environment(), folder=self.state.root)
