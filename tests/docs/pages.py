"""The pages of the documentation, taken apart."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("**/*.md"))]
TRANSLATED = [(ROOT / "README.md", DOCS / "zh" / "README.md")]
TRANSLATED += [
    (DOCS / page.name, page)
    for page in sorted(DOCS.glob("zh/*.md"))
    if page.name != "README.md"
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"(?:#|//) (\w+\.\w+)\n+")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def name_of(page: Path) -> str:
    """Give the name by which a test calls a page."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path, language: str = "python") -> list[tuple[str | None, str]]:
    """Give the blocks of a page in a language, each with the file that it names."""
    found: list[tuple[str | None, str]] = []
    for each, code in _BLOCK.findall(page.read_text("utf-8")):
        if each == language:
            named = _NAMED.match(code)
            found.append((named[1], code[named.end() :]) if named else (None, code))
    return found


def without_comments(code: str) -> list[str]:
    """Give what Python sees of a piece of code."""
    skipped = (tokenize.COMMENT, tokenize.NL)
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [each.string for each in tokens if each.type not in skipped]


def links(page: Path) -> list[str]:
    """Give the targets of the links that stay inside the project."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    return [each for each in _LINK.findall(text) if "://" not in each]


def anchors(page: Path) -> set[str]:
    """Give the anchors of the headings, as GitHub makes them."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    kept = (re.sub(r"[^\w\- ]", "", each.lower()) for each in _HEADING.findall(text))
    return {each.replace(" ", "-") for each in kept}


def both_languages(name: str) -> list[Path]:
    """Give a page and its translation."""
    return [DOCS / name, DOCS / "zh" / name]


def outline(page: Path) -> list[str]:
    """Give the marks of headings and list items, in order."""
    text = _BLOCK.sub("", page.read_text("utf-8"))
    return re.findall(r"^(#+|-|\d+\.) ", text, re.MULTILINE)


def inline_code(text: str) -> set[str]:
    """Give what stands between single backticks outside of blocks."""
    found = re.findall(r"`([^`]+)`", _BLOCK.sub("", text))
    return {" ".join(each.split()) for each in found}


def rows(page: Path) -> list[list[str]]:
    """Give the cells of all tables of a page."""
    return table(page.read_text("utf-8"))


def table(text: str) -> list[list[str]]:
    """Give the cells of all tables of a text, with those of their headings."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("|--")
    ]


def section(page: Path, title: str) -> str:
    """Give what stands under a heading, with the headings inside."""
    text = page.read_text("utf-8")
    heading = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert heading, f"{name_of(page)} has no heading {title!r}"
    rest = text[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest
