"""Where a new process finds an App."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, ConfigurationError
from rmqarq.loader import load, path_of
from tests.broker.apps import ledger_app

if TYPE_CHECKING:
    from pathlib import Path

made_here = App(queue="of_this_module")

PROGRAM = """
from rmqarq import App
from rmqarq.loader import path_of

app = App()

@app.task
async def work() -> None: ...

if __name__ == "__main__":
    print(path_of(app))
"""
SPLIT = """
from rmqarq.loader import path_of
from parts.jobs import app as imported

if __name__ == "__main__":
    print(path_of(imported))
"""
LATER = """
from rmqarq import App
from rmqarq.loader import path_of

def main():
    app = App()
    print(path_of(app))

main()
"""
LAZY = """
import importlib.util, sys
from rmqarq import App
from rmqarq.loader import path_of

spec = importlib.util.find_spec("lazy")
loader = spec.loader = importlib.util.LazyLoader(spec.loader)
lazy = sys.modules["lazy"] = importlib.util.module_from_spec(spec)
loader.exec_module(lazy)
app = App()
if __name__ == "__main__":
    print(path_of(app))
"""


def run(directory: Path, *args: str) -> str:
    """Run Python and give what it printed."""
    shown = subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env={k: v for k, v in os.environ.items() if not k.startswith("RMQARQ_")},
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip()


def write(directory: Path, **files: str) -> None:
    """Write Python files; two underscores stand for a folder."""
    for name, text in files.items():
        path = directory.joinpath(*name.split("__", 1)).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def test_an_app_is_found_in_the_module_that_holds_it() -> None:
    assert path_of(made_here) == f"{__name__}:made_here"
    assert path_of(ledger_app.app) == "tests.broker.apps.ledger_app:app"
    assert load("tests.broker.apps.ledger_app:app") is ledger_app.app


def test_where_its_tasks_are_comes_before_who_has_imported_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # found first: this stands in front of all modules
    first: dict[str, Any] = {"aaa": sys.modules[__name__], **sys.modules}
    monkeypatch.setattr(sys, "modules", first)
    monkeypatch.setitem(globals(), "imported", ledger_app.app)
    assert path_of(ledger_app.app) == "tests.broker.apps.ledger_app:app"


def test_an_app_that_a_function_has_made_is_nowhere() -> None:
    assert path_of(App()) is None
    assert path_of(ledger_app.make()) is None


def test_odd_things_among_the_modules_do_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Odd:
        __slots__ = ()

        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "odd", Odd())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "none", None)  # type: ignore[arg-type]
    assert path_of(App()) is None


def test_a_lazy_module_is_not_imported_by_the_search(tmp_path: Path) -> None:
    write(tmp_path, lazy="print('imported')", program=LAZY)
    assert run(tmp_path, "program.py") == "program:app"


def test_the_program_itself_is_named_as_a_new_process_can_import_it(
    tmp_path: Path,
) -> None:
    write(tmp_path, program=PROGRAM, parts__jobs=PROGRAM, parts__program=PROGRAM)
    assert run(tmp_path, "program.py") == "program:app"
    assert run(tmp_path, "-m", "program") == "program:app"
    assert run(tmp_path, "-m", "parts.program") == "parts.program:app"
    assert run(tmp_path, "parts/program.py") == "program:app"
    assert run(tmp_path.parent, str(tmp_path / "program.py")) == "program:app"


def test_an_app_of_another_module_is_named_by_that(tmp_path: Path) -> None:
    write(tmp_path, split=SPLIT, parts__jobs=PROGRAM)
    assert run(tmp_path, "split.py") == "parts.jobs:app"
    assert run(tmp_path, "-m", "split") == "parts.jobs:app"


def test_what_no_new_process_could_import_is_nowhere(tmp_path: Path) -> None:
    write(tmp_path, later=LATER, parts____main__=PROGRAM)
    (tmp_path / "not-a-name.py").write_text(PROGRAM)
    assert run(tmp_path, "later.py") == "None"
    assert run(tmp_path, "not-a-name.py") == "None"
    assert run(tmp_path, "-c", PROGRAM) == "None"
    assert run(tmp_path, "parts") == "None"  # its __main__.py


def test_a_module_that_starts_its_worker_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from rmqarq import App, Worker\napp = App()\nWorker(app).run_sync()\n"
    (tmp_path / "unguarded.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigurationError, match="'unguarded' starts a worker while"):
        load("unguarded:app")
