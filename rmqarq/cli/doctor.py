"""`rmqarq doctor`: why does it not work?"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import typer

from rmqarq import logs
from rmqarq.cli import output
from rmqarq.cli.target import Json, Path, Url
from rmqarq.doctor import examine, loaded
from rmqarq.findings import Finding, worst
from rmqarq.records import masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.findings import Sentence


def doctor(app: Path, *, url: Url = None, as_json: Json = False) -> None:
    """Find out why it does not work, and how it is mended. Creates nothing.

    Looks at the App in MODULE:APP, its settings, its broker and its queues. Publishes
    one empty message that no queue gets, to learn of alarms.

    Exit codes: 0 no errors; 1 at least one.
    """
    findings = _findings(app, url)
    if as_json:
        output.as_json([_as_data(each) for each in findings])
    else:
        _show(findings)
    if worst(findings) == "error":
        raise typer.Exit(1)


def _findings(path: str, url: str | None) -> Sequence[Finding]:
    logs.set_up("WARNING", output.language())
    found = loaded(path, url)
    return [found] if isinstance(found, Finding) else asyncio.run(examine(found, path))


def _show(findings: Sequence[Finding]) -> None:
    following = [each.fix for each in findings[1:]]
    for each, next_fix in zip(findings, [*following, None], strict=True):
        level = output.padded(output.translated(each.level), 8)
        words = {"level": level, "where": each.where, "what": _filled(each.what)}
        output.say("{level} {where}: {what}", **words)
        if each.fix is not None and each.fix != next_fix:  # one command mends both
            output.say("{space:<8} fix: {fix}", space="", fix=_filled(each.fix))
    counts = Counter(each.level for each in findings)
    typer.echo()
    output.say(
        "{errors} errors, {warnings} warnings, {notes} notes",
        errors=counts["error"],
        warnings=counts["warning"],
        notes=counts["note"],
    )


def _filled(given: Sentence) -> str:
    if not given.words:  # a command may have braces of its own
        return output.translated(given.template)
    return masked(output.filled(given.template, **given.words))


def _as_data(finding: Finding) -> dict[str, str | None]:
    return {
        "level": finding.level,
        "where": finding.where,
        "what": masked(str(finding.what)),
        "fix": None if finding.fix is None else str(finding.fix),
    }
