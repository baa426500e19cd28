"""The layers hold, and a module that reaches past them is caught."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.files import ROOT


def _lint(folder: Path) -> str:
    """What import-linter says of the packages in a folder, under the project's own configuration; empty when all is well."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "COLUMNS": "1000", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_project_keeps_its_layers() -> None:
    assert not _lint(ROOT)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A project of the same shape, with two services that keep every layer."""
    for package in ("deploy", "schemas", "shared", "tests", "services", "services/org", "services/user", "services/agent"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    _write(tmp_path, "shared/tx.py", "")
    _write(tmp_path, "schemas/org.py", "import shared.tx")
    for service in ("org", "user"):
        home = f"services.{service}"
        for part in ("api", "reactions", "workers"):
            _write(tmp_path, f"services/{service}/{part}.py", f"from {home} import noun\nimport schemas.org")
        _write(tmp_path, f"services/{service}/noun.py", "import shared.tx")
        _write(tmp_path, f"services/{service}/main.py", f"from {home} import api, reactions, workers")
    _write(tmp_path, "services/agent/main.py", "import schemas.org")
    _write(tmp_path, "deploy/stack.py", "from services.org import main")
    _write(tmp_path, "tests/test_org.py", "import deploy.stack\nfrom services.org import api")
    return tmp_path


def _write(folder: Path, path: str, text: str) -> None:
    (folder / path).write_text(text)


def test_a_project_of_the_right_shape_passes(small: Path) -> None:
    assert not _lint(small)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("services/org/noun.py", "from services.user import noun"),
        ("services/org/reactions.py", "import services.user.noun"),
        ("services/org/noun.py", "from services.org import api"),
        ("services/org/noun.py", "import services.org.main"),
        ("services/org/api.py", "from services.org import workers"),
        ("services/org/workers.py", "from services.org import main"),
        ("services/org/noun.py", "import deploy.stack"),
        ("schemas/org.py", "import services.org.noun"),
        ("shared/tx.py", "import schemas.org"),
        ("shared/tx.py", "import services.user.noun"),
        ("shared/tx.py", "import deploy"),
        ("deploy/stack.py", "import tests.test_org"),
    ],
)
def test_reaching_past_a_layer_is_caught(small: Path, path: str, text: str) -> None:
    _write(small, path, text)
    assert "BROKEN" in _lint(small)
