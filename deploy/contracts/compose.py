"""docker-compose.yml, as ``make compose`` writes it."""

import re
from pathlib import Path
from typing import Any

import yaml

from deploy.containers import Compose
from deploy.contracts import ROOT

COMPOSE = ROOT / "docker-compose.yml"
_HEAD = """\
# The mesh of `make up` as containers: official images, and one of ours for everything that is Python (deploy/Dockerfile).
#
#   make containers                     the passwords, generated, into .env
#   docker compose up --build --wait    Docker Compose 2.23.1 or newer; the doors are those of `make up`, on 127.0.0.1
#
# Written from deploy/containers.py by `make compose`: change it there, or beside it in docker-compose.override.yml.
"""


class _Dumper(yaml.SafeDumper):
    """Texts of several lines stay texts of several lines, lists of words stand in one, and nothing refers to something above."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is its base's
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    def words(self, data: list[Any]) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=all(isinstance(one, str) for one in data))


_Dumper.add_representer(str, _Dumper.text)
_Dumper.add_representer(list, _Dumper.words)


def text() -> str:
    parts = Compose().document()
    blocks = [yaml.dump({name: part}, Dumper=_Dumper, sort_keys=False, width=160) for name, part in parts.items()]
    return _HEAD + "".join("\n" + re.sub(r"\n(?=  \w[\w.-]*:\n)", "\n\n", block).replace(":\n\n", ":\n", 1) for block in blocks)


def files() -> dict[Path, str]:
    return {COMPOSE: text()}
