"""All faults: every module of this package registers its own, without being named anywhere else."""

import importlib
import pkgutil

from tests.faults.registry import CASES

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["CASES"]
