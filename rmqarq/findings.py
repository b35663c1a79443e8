"""What the doctor has found: how bad it is, where, what it is, and how it is mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rmqarq.errors import RmqarqError

Level: TypeAlias = Literal["ok", "note", "warning", "error"]


class Sentence(Struct, frozen=True):
    """An English template with `{name}` placeholders beside what is filled in.

    It is filled when it is shown, so that it can be translated before.
    """

    template: str
    words: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return self.template.format(**self.words) if self.words else self.template


def sentence(template: str, /, **words: object) -> Sentence:
    """Make a sentence of a literal template; a command with braces is a word."""
    return Sentence(template, words)


def told_by(error: RmqarqError) -> Sentence:
    """Make a sentence of what an error says."""
    return Sentence(error.template, error.params)


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    Args:
        level: `ok`; `note`: good to know; `warning`: works, but not as it should;
            `error`: producers or workers fail.
        where: The name of the queue, task, setting or URL.
        what: What was found.
        fix: A command or a line of code that mends it.
    """

    level: Level
    where: str
    what: Sentence
    fix: Sentence | None = None


def worst(findings: Iterable[Finding]) -> Level:
    """Give the worst level among findings."""
    order: tuple[Level, ...] = ("ok", "note", "warning", "error")
    ranks = [order.index(each.level) for each in findings]
    return order[max(ranks, default=0)]
