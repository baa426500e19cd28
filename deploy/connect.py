"""Runs the Kafka Connect worker: its REST interface wants a password, and the passwords it uses stay in files."""

from dataclasses import dataclass
from pathlib import Path

from deploy import java
from deploy.connectors import Registry
from deploy.kafka import Broker, properties
from deploy.plan import Plan
from deploy.process import Command
from deploy.state import State, write_atomically

NAME = "connect"
USER = "mesh"
HEAP = ("-Xms128m", "-Xmx512m")
_TEMPLATE = Path(__file__).parent / "config" / "connect.properties"
_LOGIN = """KafkaConnect {{
    org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule required file="{file}";
}};
"""


@dataclass(frozen=True)
class Worker:
    state: State
    broker: Broker
    host: str
    port: int

    @classmethod
    def of(cls, state: State, plan: Plan) -> "Worker":
        return cls(state, Broker.of(state, plan), plan.host(NAME), plan.ports[NAME])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

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
        """All jars are on the class path: there is no plugin besides."""
        plugins = self.state.root / "plugins"
        plugins.mkdir(exist_ok=True)
        for path, text in self.files(plugins).items():
            write_atomically(path, text)

    def files(self, plugins: Path) -> dict[Path, str]:
        """What the worker reads, with its plugins in that folder."""
        values: dict[str, str | int] = {
            "bootstrap": self.broker.bootstrap, "host": self.host, "port": self.port, "secrets": str(self._secrets),
            "plugins": str(plugins), "password": self.broker.password("connect"),
        }  # fmt: skip
        return {
            self._secrets: f"mesh_cdc={self.state.secret('postgres:mesh_cdc')}\n",
            self.users: f"{USER}={self.password}\n",
            self.state.rendered("connect.login"): _LOGIN.format(file=str(self.users).replace("\\", "\\\\").replace('"', '\\"')),
            self.configuration: properties(_TEMPLATE, values),
        }

    @property
    def users(self) -> Path:
        """Who may use the REST interface: ``user=password``."""
        return self.state.rendered("connect.users")

    @property
    def configuration(self) -> Path:
        return self.state.rendered("connect.properties")

    @property
    def login(self) -> str:
        """The option that tells Java who may use the REST interface."""
        return f"-Djava.security.auth.login.config={self.state.rendered('connect.login')}"

    def command(self) -> Command:
        options = [*HEAP, self.login]
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        argv = java.command(self.state, NAME, main, options, [str(self.configuration)])
        return Command(NAME, argv, java.environment(), folder=self.state.root)
