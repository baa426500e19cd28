"""The ``mesh`` command: brings a mesh up and down and shows how it is."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from deploy import backups, containers, flows, mail, parked, streams, terminal
from deploy import doctor as checks
from deploy.demo import demo
from deploy.errors import MeshError
from deploy.lag import lag
from deploy.plan import parse_replicas
from deploy.process import recorded
from deploy.progress import Reporter
from deploy.stack import Mesh
from deploy.state import CHECKOUT, State
from deploy.status import Document, Observer

_EXIT_CODES = "Exit codes: 0 well · 1 something failed or is not healthy · 2 the command was not understood · 3 there is no mesh here."

app = typer.Typer(
    help="Run a SaaS Mesh on this machine.", epilog=_EXIT_CODES, no_args_is_help=True,
    add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
)  # fmt: skip
app.add_typer(mail.app, name="mail")
app.add_typer(flows.app, name="flows")
app.add_typer(parked.app, name="parked")
for command in (streams.resend, streams.restate, streams.restored, backups.backup, backups.restore, lag, demo):
    app.command()(command)

AsJson = Annotated[bool, typer.Option("--json", help="Answer JSON.")]


def _mesh() -> Mesh:
    return Mesh(State.default())


@app.command()
def up(
    port_base: Annotated[int | None, typer.Option(min=0, max=65000, help="The first port; 0 takes free ones. Default: 8400.")] = None,
    data_planes: Annotated[int | None, typer.Option(min=1, max=9, help="How many data planes.")] = None,
    databases: Annotated[int | None, typer.Option(min=1, max=6, help="How many databases the services share.")] = None,
    replicas: Annotated[list[str] | None, typer.Option(help="Run a service more than once: org=2")] = None,
) -> None:
    """Start the mesh, or adjust the one that runs. Data is kept."""
    began = time.monotonic()
    try:
        mesh = Mesh.start(
            State.default().root, port_base=port_base, data_planes=data_planes, databases=databases,
            replicas=None if replicas is None else parse_replicas(replicas), report=Reporter(),
        )  # fmt: skip
    except KeyboardInterrupt:
        raise MeshError("Interrupted: what has been started runs on.", "mesh up goes on with it, mesh down ends it", code=130) from None
    terminal.line(f"\n[green]The mesh is up[/] after {time.monotonic() - began:.1f} s.")
    _links(mesh.status())


def _links(document: Document) -> None:
    services = document["services"]
    terminal.heading("Services")
    terminal.table([name, f"{service['url']}/docs"] for name, service in services.items() if service["state"] != "missing")
    terminal.heading("Mail and cards")
    terminal.table([["mail inbox", document["mail"]["url"]], ["smtp", document["mail"]["smtp"]], ["stripe", document["stripe"]["url"]]])
    terminal.heading("Bus and databases")
    kafka, connect = document["kafka"], document["connect"]
    terminal.table(
        [
            ["kafka", kafka["bootstrap"], f"{kafka['admin']['username']} / {terminal.masked(kafka['admin']['password'])}"],
            ["connect", connect["url"], f"{connect['username']} / {terminal.masked(connect['password'])}"],
            *(_server_row(name, server) for name, server in _servers(document)),
        ]
    )
    terminal.heading("Next")
    terminal.table([["mesh status", "how everything is"], ["mesh mail list", "what was mailed"], ["mesh logs -f org", "what a service does"]])


def _servers(document: Document) -> Iterator[tuple[str, Document]]:
    yield "postgres", document["postgres"]
    for plane in document["data_planes"]:
        yield f"data plane {plane['id']}", plane


def _server_row(name: str, server: Document) -> list[str]:
    user, password = server["url"].split("//")[1].split("@")[0].split(":")
    return [name, f"{server['host']}:{server['port']}", f"{user} / {terminal.masked(password)}"]


@app.command()
def down() -> None:
    """End everything. Data is kept."""
    began, mesh = time.monotonic(), _mesh()
    mesh.stop()
    if mesh.state.plan.exists():
        terminal.line(f"The mesh is down after {time.monotonic() - began:.1f} s; its data is kept.")
    else:
        terminal.line(f"There is no mesh in {mesh.state.root}, and nothing of it runs.")


@app.command()
def status(
    as_json: AsJson = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Add the administrators' credentials.")] = False,
) -> None:
    """Show how the mesh is. Exits 0 only when all of it is healthy."""
    document = Observer.of(State.default()).document(show_secrets)
    if as_json:
        terminal.show_json(document)
    else:
        terminal.table(_status_rows(document))
        if show_secrets:
            terminal.heading("Secrets")
            kafka, connect = document["kafka"]["admin"], document["connect"]
            terminal.table([[name, f"{one['username']} / {one['password']}"] for name, one in (("kafka", kafka), ("connect", connect))])
            terminal.table([[name, server["url"]] for name, server in _servers(document)])
            terminal.table([["operator token", document["operator_token"]]])
    raise typer.Exit(0 if document["healthy"] else 1)


def _status_rows(document: Document) -> Iterator[list[str]]:
    for name, service in document["services"].items():
        yield [name, terminal.word(service["state"]), service["url"], _pids(service)]
    for agent in document["agents"]:
        yield [f"agent-{agent['id']}", terminal.word(agent["state"]), "", _pids(agent)]
    yield ["kafka", terminal.word(document["kafka"]["state"]), document["kafka"]["bootstrap"], _pids(document["kafka"])]
    yield ["connect", terminal.word(document["connect"]["state"]), document["connect"]["url"], _pids(document["connect"])]
    for name, state in document["connect"]["connectors"].items():
        yield [f"  {name}", terminal.word(state), "", ""]
    for name, server in _servers(document):
        yield [name, terminal.word(server["state"]), f"{server['host']}:{server['port']}", _pids(server)]
    for name in ("mail", "stripe"):
        if name in document:
            yield [name, terminal.word(document[name]["state"]), document[name]["url"], _pids(document[name])]
    yield ["supervisor", terminal.word(document["supervisor"]["state"]), "", _pids(document["supervisor"])]


def _pids(part: Document) -> str:
    pids = part.get("pids") or [part["pid"]]
    return "pid " + ", ".join(map(str, pids)) if pids[0] else ""


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A process: org, kafka, agent-local, supervisor, …")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Print the log of one process."""
    path = State.default().log(name)
    if not path.exists():
        names = ", ".join(sorted(log.stem for log in path.parent.glob("*.log"))) or "none yet"
        raise MeshError(f"There is no log of {name}.", f"Logs: {names}", code=2)
    with path.open(errors="replace") as file:
        sys.stdout.writelines(line for line in file.readlines()[-lines:])
        sys.stdout.flush()
        if follow:
            _follow(path, file.tell())


def _follow(path: Path, position: int) -> None:
    """Until interrupted. A log that was cut short is read from its beginning."""
    while True:
        size = path.stat().st_size
        if size > position:
            with path.open(errors="replace") as file:
                file.seek(position)
                sys.stdout.write(file.read(size - position))
                sys.stdout.flush()
        position = size
        time.sleep(0.2)


@app.command()
def restart(name: Annotated[str, typer.Argument(help="A process: org, kafka, agent-local, …")]) -> None:
    """End one process gracefully, and wait until its successor is ready."""
    began = time.monotonic()
    _mesh().restart(name)
    terminal.line(f"{name} runs again after {time.monotonic() - began:.1f} s.")


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """End everything and remove all of its data and passwords. The cache stays."""
    state = State.default()
    if not yes:
        terminal.confirm("Removing the mesh with all its data", f"Remove the mesh in {state.root} with all its data?", "mesh reset --yes")
    _mesh().reset()
    terminal.line("The mesh and its data are gone.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look for what keeps the mesh from running, and say what mends it."""
    findings = checks.examine(State.default())
    if as_json:
        terminal.show_json({"healthy": all(finding.ok for finding in findings), "findings": [asdict(f) for f in findings]})
        raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)
    for finding in findings:
        terminal.table([[terminal.word("ok" if finding.ok else "problem"), finding.about, escape(finding.detail)]])
        if not finding.ok:
            terminal.line(f"           → {escape(finding.mend)}")
    checks.require_healthy(findings)


@app.command("containers")
def make_containers_ready() -> None:
    """Write .env with the passwords that docker-compose.yml asks for. Passwords that are there stay."""
    state = State(CHECKOUT / ".mesh-containers")
    containers.prepare(state, CHECKOUT / ".env")
    terminal.line("The passwords are in .env. Start the mesh:  docker compose up --build --wait")
    terminal.line(f"Look at it from here:                      MESH_STATE={state.root.name} mesh status")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def faults(context: typer.Context) -> None:
    """Run the fault suite on meshes of its own: --case, --seed, --list."""
    sys.exit(subprocess.run([sys.executable, "-m", "tests.faults.run", *context.args], cwd=CHECKOUT, check=False).returncode)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Measure how fast it is, on meshes of its own: names of cases, --json, --quick, --list."""
    sys.exit(subprocess.run([sys.executable, "-m", "tests.bench.run", *context.args], cwd=CHECKOUT, check=False).returncode)


@app.command()
def token() -> None:
    """Print the operator token."""
    if not (recorded(State.default()) or _mesh().plan.hosts):
        raise MeshError("No mesh runs here.", "Start one: mesh up", code=3)
    terminal.line(_mesh().environment.operator_token)


def main() -> None:
    """Run the command; every failure that a person can mend is one line, with the next step below it."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, and not when the interpreter ends: nobody may be reading any more
    except MeshError as error:
        terminal.problem(error.problem, error.hint)
        sys.exit(error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
