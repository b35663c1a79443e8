"""Which directories are watched for changes of an App, and how without watchfiles."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from rmqarq.worker.changes import changes, directories_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory; beside it, `there`, where modules are found, too."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "there")])
    return tmp_path / "here"


def test_a_module_of_the_current_directory_needs_no_other(here: Path) -> None:
    (here / "shop_jobs.py").touch()
    (here / "shop").mkdir()
    (here / "shop" / "__init__.py").touch()
    assert directories_of("shop_jobs:app") == [here]
    assert directories_of("shop.jobs:app") == [here]


def test_a_package_from_elsewhere_is_watched_whole_and_is_not_imported(
    here: Path,
) -> None:
    package = here.parent / "there" / "rmqarq_far_shop"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit")
    assert directories_of("rmqarq_far_shop.jobs:app") == [here, package]


@pytest.mark.parametrize(
    "path", ["pytest:app", "rmqarq_nowhere:app", "sys:app", ":app"]
)
def test_what_is_installed_or_nowhere_is_not_watched(here: Path, path: str) -> None:
    assert directories_of(path) == [here]


async def test_without_watchfiles_the_files_are_looked_at_again_and_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in (".git", "node_modules", "venv", "shop", "shop/inside"):
        (here / name).mkdir()
    (here / "venv" / "pyvenv.cfg").touch()
    (here / "shop" / "old.py").touch()
    async with aclosing(changes([here])) as told, asyncio.timeout(20):
        nothing = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0.7)
        for name in ("notes.txt", ".git/a.py", "node_modules/b.py", "venv/c.py"):
            (here / name).write_text("x = 1")
        await asyncio.sleep(0.7)
        assert not nothing.done()
        (here / "shop" / "inside" / "new.py").touch()
        assert await nothing == str(here / "shop" / "inside" / "new.py")
        (here / "shop" / "old.py").write_text("x = 1")
        assert await anext(told) == str(here / "shop" / "old.py")
        (here / "shop" / "old.py").unlink()
        assert await anext(told) == str(here / "shop" / "old.py")
