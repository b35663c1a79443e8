"""Tells when Python files of a project change; watchfiles looks."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmqarq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from importlib.machinery import ModuleSpec

QUIET = 200
"""Milliseconds without a further change: an editor or git writes many files."""
INSTALLED = "site-packages"


def require_watchfiles() -> None:
    """Check that watchfiles is there.

    Raises:
        ConfigurationError: It is not installed.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise ConfigurationError(
            "--reload needs watchfiles: pip install 'rmqarq[reload]'"
        )


def directories_of(path: str) -> list[Path]:
    """Give the directories with the code of an App, without importing it.

    Args:
        path: MODULE:APP.
    """
    here = Path.cwd()
    top = path.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(top, [str(here)]) or _find(top)
    home = _home(spec) if spec is not None else None
    if home is None or home.is_relative_to(here) or INSTALLED in home.parts:
        return [here]
    return [here, home]


async def changes(directories: list[Path]) -> AsyncGenerator[str]:
    """Give the name of a file each time that Python files have changed.

    Raises:
        ConfigurationError: The system watches no more files.
    """
    watchfiles: Any = importlib.import_module("watchfiles")
    is_python = watchfiles.PythonFilter()

    def ours(change: Any, name: str) -> bool:
        return is_python(change, name) and INSTALLED not in Path(name).parts

    try:
        async for changed in watchfiles.awatch(
            *directories,
            watch_filter=ours,
            step=QUIET,
            ignore_permission_denied=True,
        ):
            yield min(name for _, name in changed)
    except OSError as error:
        raise ConfigurationError(
            "{directories} can't be watched for changes: {problem}",
            directories=", ".join(map(str, directories)),
            problem=error,
        ) from None


def _find(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _home(spec: ModuleSpec) -> Path | None:
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    if spec.origin is None or not spec.has_location:
        return None
    return Path(spec.origin).resolve().parent
