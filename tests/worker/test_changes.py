"""Which directories are watched for changes of an App."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from rmqarq.worker.changes import directories_of

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
