"""Optimal transport maps between single-cell perturbation conditions."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

__version__ = version("scot-hycnn")
__all__ = ["__version__", "datasets", "get", "metrics", "pl", "pp", "regression", "solver", "tl"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule when it is first used, so that ``import scot_hycnn`` stays instant."""
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted(__all__)
