"""Whether the tests that docs/testing.md shows pass, and its names are there."""

from __future__ import annotations

import re
from pathlib import Path

from rmqarq.testing import Dead, Delayed, Done, Enqueued, Harness, World
from tests.docs.pages import DOCS, EXAMPLES, rows
from tests.testing.test_plugin import ANYIO, run

TESTED = ("test_mail",)
PAGE = DOCS / "testing.md"


def test_the_tests_that_the_page_shows_pass(tmp_path: Path) -> None:
    text = (EXAMPLES / "test_mail.py").read_text("utf-8")
    said, seen = run(tmp_path, text, [*ANYIO, "-o", "anyio_mode=auto", "-W", "error"])
    assert "6 passed" in said, said
    assert seen["touched"] == []


def test_what_the_page_names_is_there() -> None:
    text = PAGE.read_text("utf-8")
    for kind, letter in ((World, "w"), (Harness, "h")):
        names = set(re.findall(rf"`(?:await )?{letter}\.(\w+)", text))
        assert names
        missing = {each for each in names if not hasattr(kind, each)}
        assert missing <= {"enqueued"}  # of the harness: an attribute
    public = {name for name in vars(World) if not name.startswith("_")}
    assert public <= set(re.findall(r"w\.(\w+)", text))


def test_the_table_names_every_field_of_what_a_test_sees() -> None:
    table = {cells[0].strip("`"): cells[2] for cells in rows(PAGE) if len(cells) == 3}
    for kind in (Enqueued, Delayed, Done, Dead):
        name = f"w.{kind.__name__.lower()}"
        own = set(kind.__annotations__)
        assert own <= set(re.findall(r"`(\w+)`", table[name])), name
