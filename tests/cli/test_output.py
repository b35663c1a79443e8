"""What commands print: tables that stand straight, texts that steer no terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rmqarq.cli import output

if TYPE_CHECKING:
    import pytest


def test_numbers_stand_to_the_right_and_what_is_not_there_is_a_dash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("mails", 7, None), ("a", 1200, None), ("b", None, "x")]
    output.table(("queue", "ready", "why"), rows)
    assert capsys.readouterr().out.splitlines() == [
        "queue  ready  why",
        "mails      7  -",
        "a       1200  -",
        "b          -  x",
    ]


def test_columns_of_chinese_are_as_wide_as_they_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.table(("任务", "x"), [("abcde", "y")])
    assert capsys.readouterr().out == "任务   x\nabcde  y\n"
    assert output.cut("任务任务", 5) == "任务…"
    assert output.cut("任务", 4) == "任务"


def test_a_text_that_would_steer_the_terminal_is_shown_harmless() -> None:
    assert output.plain("\x1b[2Ja\nb\x9b1m\x7f") == r"\x1b[2Ja\nb\x9b1m\x7f"
    assert output.plain("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"
