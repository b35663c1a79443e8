"""Doors of packages whose names are loaded when they are first asked for (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def opener(namespace: dict[str, Any], homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package.

    Args:
        namespace: Its globals; what was loaded is kept there.
        homes: By name, the module that it comes from.
    """

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None and _is_module(namespace["__name__"], name):
            return importlib.import_module(f"{namespace['__name__']}.{name}")
        if home is None:
            msg = f"module {namespace['__name__']!r} has no attribute {name!r}"
            raise AttributeError(msg)
        found = namespace[name] = getattr(importlib.import_module(home), name)
        return found

    return load


def _is_module(package: str, name: str) -> bool:
    """Tell whether a package has a module of this name, loaded or not."""
    if name.startswith("__"):
        return False
    return importlib.util.find_spec(f"{package}.{name}") is not None
