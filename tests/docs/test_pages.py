"""Whether the pages hold together, and tell what the package does."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, get_args

import pytest

import rmqarq
from rmqarq import Settings, TransportError
from rmqarq.decorator import TaskOptions
from rmqarq.handler import ConsumeOptions
from rmqarq.outcome import Reason
from tests.docs.pages import (
    DOCS,
    EXAMPLES,
    PAGES,
    ROOT,
    TRANSLATED,
    anchors,
    both_languages,
    code_blocks,
    inline_code,
    links,
    name_of,
    outline,
    rows,
    without_comments,
)

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BY_PAGE = [pair for pair in TRANSLATED if pair[0].parent == DOCS]

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@each_page
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@each_page
def test_a_block_that_names_an_example_is_that_example(page: Path) -> None:
    for name, code in code_blocks(page):
        if name is not None:
            example = (EXAMPLES / name).read_text("utf-8")
            assert without_comments(code) == without_comments(example), name


@each_page
def test_a_block_without_a_name_runs(page: Path) -> None:
    for name, code in code_blocks(page):
        if name is None:
            exec(compile(code, name_of(page), "exec"), {"__name__": "block"})


@pytest.mark.parametrize(
    ("original", "translation"), TRANSLATED, ids=[name_of(b) for _, b in TRANSLATED]
)
def test_a_translation_shows_the_same_code(original: Path, translation: Path) -> None:
    ours, theirs = code_blocks(original), code_blocks(translation)
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (_, code), (_, other) in zip(ours, theirs, strict=True):
        assert without_comments(code) == without_comments(other)


@pytest.mark.parametrize(
    ("original", "translation"), PAGE_BY_PAGE, ids=[name_of(b) for _, b in PAGE_BY_PAGE]
)
def test_a_translation_has_the_same_parts(original: Path, translation: Path) -> None:
    assert outline(original) == outline(translation)
    ours, theirs = rows(original), rows(translation)
    assert [inline_code(row[0]) for row in ours] == [
        inline_code(row[0]) for row in theirs
    ]
    # flags, settings, names: whoever adds one to a page adds it to both
    ours_named = inline_code(original.read_text("utf-8"))
    assert ours_named == inline_code(translation.read_text("utf-8"))


@pytest.mark.parametrize(
    ("original", "translation"), TRANSLATED, ids=[name_of(b) for _, b in TRANSLATED]
)
def test_a_page_and_its_translation_lead_to_each_other(
    original: Path, translation: Path
) -> None:
    for page, other in ((original, translation), (translation, original)):
        targets = {(page.parent / link).resolve() for link in links(page)}
        assert other in targets


def test_the_readme_shows_its_examples_as_they_are() -> None:
    blocks = code_blocks(ROOT / "README.md")
    assert [name for name, _ in blocks] == ["app.py", "send.py"]
    for name, code in blocks:
        assert code == (EXAMPLES / str(name)).read_text("utf-8")


def test_the_index_names_every_page() -> None:
    named = {(DOCS / link).resolve() for link in links(DOCS / "index.md")}
    assert named == {*DOCS.glob("**/*.md")} - {DOCS / "index.md"}


@pytest.mark.parametrize("page", both_languages("settings.md"), ids=name_of)
def test_every_setting_is_in_its_table_with_variable_and_default(page: Path) -> None:
    table = {
        cells[0].strip("`"): cells for cells in rows(page) if cells[0].startswith("`")
    }
    assert list(table) == list(Settings.__struct_fields__)
    for name, default in zip(table, Settings.__struct_defaults__, strict=True):
        _, variable, _, shown, meaning = table[name]
        assert variable == f"`RMQARQ_{name.upper()}`"
        assert ast.literal_eval(shown.strip("`")) == default, name
        assert meaning


EVERYWHERE = {"--help", "--language"}
"""Flags of every command: the page names them once."""

COMMANDS = (
    "run",
    "dev",
    "check",
    "tasks",
    "doctor",
    "broker",
    "queue info",
    "queue purge",
    "dlq list",
    "dlq show",
    "dlq requeue",
    "dlq drop",
    "lost list",
    "lost requeue",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_every_flag_of_a_command_and_no_other(command: str) -> None:
    flags = flags_of(command)
    assert "--help" in flags
    named = {row[0].strip("`") for row in section(f"rmqarq {command}")}
    assert {each for each in named if each.startswith("--")} | EVERYWHERE == flags


def test_every_command_has_its_section() -> None:
    found = {
        command if not below else f"{command} {below}"
        for command in subcommands()
        for below in subcommands(command) or ("",)
    }
    assert found == set(COMMANDS)


def test_the_flags_that_the_settings_name_are_there() -> None:
    in_settings = {row[2].strip("`") for row in rows(DOCS / "settings.md")}
    named = {each for each in in_settings if each.startswith("--")}
    assert named < flags_of("run")


def section(heading: str) -> list[list[str]]:
    """Give the cells of the tables under one heading of the page on commands."""
    found: list[list[str]] = []
    inside = False
    for line in (DOCS / "cli.md").read_text("utf-8").splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ") == heading
        elif inside and line.startswith("| "):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rmqarq", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@cache
def flags_of(command: str) -> set[str]:
    found = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", help_of(*command.split()), re.M)
    return set(found)


def subcommands(*command: str) -> list[str]:
    _, _, listed = help_of(*command).partition("Commands:\n")
    return re.findall(r"^  ([a-z]+)", listed, re.MULTILINE)


def test_every_option_of_a_task_is_in_the_tables_of_both_languages() -> None:
    for page in both_languages("tasks.md"):
        named = {row[0].strip("`") for row in rows(page)}
        assert set(TaskOptions.__annotations__) <= named


def test_every_option_of_a_consume_function_is_in_its_table() -> None:
    named = {row[0].strip("`") for row in rows(DOCS / "consuming.md")}
    assert set(ConsumeOptions.__annotations__) <= named


@pytest.mark.parametrize("page", both_languages("retries.md"), ids=name_of)
def test_every_reason_of_a_dead_letter_is_explained(page: Path) -> None:
    named = {row[0].strip("`") for row in rows(page)}
    assert set(get_args(Reason)) <= named


@pytest.mark.parametrize("page", both_languages("enqueueing.md"), ids=name_of)
def test_every_error_that_an_enqueue_may_raise_is_explained(page: Path) -> None:
    named = {row[0].strip("`") for row in rows(page)}
    kinds = (getattr(rmqarq, name) for name in rmqarq.__all__)
    public = {kind for kind in kinds if isinstance(kind, type)}
    raised = {kind.__name__ for kind in public if issubclass(kind, TransportError)}
    # a lost link is repeated, so it shows as another error of the two above it
    assert raised - {"TransportError", "ConnectionLost"} <= named


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / "rmqarq" / name).exists(), name


def test_the_changelog_names_this_version() -> None:
    text = (DOCS / "changelog.md").read_text("utf-8")
    assert f"\n## [{version('rmqarq')}]" in text


@pytest.mark.parametrize("shell", ["sh", "dash"])
@pytest.mark.parametrize(
    "script", ["docs/quickstart", "tests/run", "tests/setup.sh", "tests/rabbitmq4.sh"]
)
def test_the_scripts_are_read_by_a_plain_shell(shell: str, script: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    subprocess.run([shell, "-n", ROOT / script], check=True)
