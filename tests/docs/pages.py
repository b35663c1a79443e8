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
_NAMED = re.compile(r"# (\w+\.py)\n+")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def name_of(page: Path) -> str:
    """Give the name by which a test calls a page."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path) -> list[tuple[str | None, str]]:
    """Give the python blocks of a page, each with the file that it names."""
    found: list[tuple[str | None, str]] = []
    for language, code in _BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
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


def rows(page: Path) -> list[list[str]]:
    """Give the cells of all tables of a page."""
    lines = page.read_text("utf-8").splitlines()
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in lines
        if line.startswith("|") and not line.startswith("|--")
    ]
