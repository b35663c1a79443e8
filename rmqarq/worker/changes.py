"""Tells when Python files of a project change.

watchfiles is told by the system; where it is not installed, the files are looked at
again and again.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rmqarq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from importlib.machinery import ModuleSpec

QUIET = 200
"""Milliseconds without a further change: an editor or git writes many files."""
INSTALLED = "site-packages"
LOOK = 0.5
"""Seconds between two looks at the files; more where one takes long."""
SHARE = 20
"""A look takes at most this part of the time."""
SUFFIXES = (".py", ".pyx", ".pyd")
NOT_OURS = {INSTALLED, "__pycache__", "node_modules"}

Snapshot: TypeAlias = dict[str, tuple[int, int]]


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


def changes(directories: list[Path]) -> AsyncGenerator[str]:
    """Give the name of a file each time that Python files have changed.

    Raises:
        ConfigurationError: The system watches no more files.
    """
    if importlib.util.find_spec("watchfiles") is None:
        return looked_for(directories)
    return _watched(directories)


async def looked_for(directories: list[Path]) -> AsyncGenerator[str]:
    """Give the same as `changes`, by looking at all files every half second."""
    pause = LOOK
    known = await asyncio.to_thread(_snapshot, directories)
    while True:
        await asyncio.sleep(pause)
        began = time.monotonic()
        found = await asyncio.to_thread(_snapshot, directories)
        pause = max(LOOK, SHARE * (time.monotonic() - began))
        if names := _differing(known, found):
            while True:  # until they have settled
                await asyncio.sleep(QUIET / 1000)
                later = await asyncio.to_thread(_snapshot, directories)
                if later == found:
                    break
                found = later
            yield min(names)
        known = found


def _snapshot(directories: list[Path]) -> Snapshot:
    """Note when each Python file was written last, and how large it is."""
    found: Snapshot = {}
    for path in _files(directories):
        try:
            status = path.stat()
        except OSError:  # gone, or not for us
            continue
        found[str(path)] = (status.st_mtime_ns, status.st_size)
    return found


def _files(directories: list[Path]) -> Iterator[Path]:
    for directory in directories:
        for place, below, names in os.walk(directory):
            below[:] = [each for each in below if _is_ours(Path(place, each))]
            yield from (Path(place, each) for each in names if each.endswith(SUFFIXES))


def _is_ours(directory: Path) -> bool:
    if directory.name.startswith(".") or directory.name in NOT_OURS:
        return False
    return not (directory / "pyvenv.cfg").exists()  # a virtual environment


def _differing(before: Snapshot, after: Snapshot) -> set[str]:
    return {name for name, _ in before.items() ^ after.items()}


async def _watched(directories: list[Path]) -> AsyncGenerator[str]:
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
