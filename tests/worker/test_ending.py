"""The exit code tells others how a worker ended."""

from __future__ import annotations

from typing import get_args

import pytest

from rmqarq.worker import Ending
from rmqarq.worker.ending import Why


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (Ending("asked to stop"), 0),
        (Ending("asked to stop", "SIGTERM"), 0),
        (Ending("enough jobs"), 0),
        (Ending("queues empty"), 0),
        (Ending("queues empty", dead_letters=True), 5),
        (Ending("enough jobs", dead_letters=True), 5),
        (Ending("burst timeout"), 4),
        (Ending("burst timeout", dead_letters=True), 4),
        (Ending("broker unreachable"), 4),
        (Ending("forced", "SIGINT"), 130),
        (Ending("forced", "SIGTERM"), 143),
        (Ending("forced", "SIGTERM", dead_letters=True), 143),
    ],
)
def test_every_ending_has_its_exit_code(ending: Ending, code: int) -> None:
    assert ending.exit_code == code


def test_no_ending_looks_like_a_crash_or_a_wrong_command_line() -> None:
    for why in get_args(Why):
        assert Ending(why).exit_code not in (1, 2, 3)
