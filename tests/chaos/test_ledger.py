"""The ledger's judgement: it finds what it is there to find, and nothing else."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmqarq import (
    BrokerBlocked,
    ConnectionFailed,
    ConnectionLost,
    OutcomeUnknown,
    QueueFull,
    Unroutable,
)
from rmqarq.context import Context, State
from rmqarq.message import Message
from tests.chaos.ledger import LOG_VARIABLE, Account, Log, Row, check, note

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.ledger import Verdict


def row(kind: str, job_id: str, job_try: int = 1, pid: int = 7) -> Row:
    return Row(kind, job_id, job_try, 0.0, pid, 1)


def ran(*ids: str, job_try: int = 1) -> list[Row]:
    return [row(kind, job_id, job_try) for job_id in ids for kind in "SD"]


def account(
    confirmed: str = "", *, unknown: str = "", refused: str = "", doomed: str = ""
) -> Account:
    """Make an account of jobs with ids of one letter."""
    made = Account(deadline=1.0)
    made.confirmed = set(confirmed)
    made.unknown = set(unknown)
    made.refused = set(refused)
    made.doomed = set(doomed)
    made.sent = set(confirmed + unknown + refused)
    return made


def test_all_is_well_when_every_confirmed_job_was_done_once() -> None:
    verdict = check(account("ab"), ran("a", "b"))
    assert verdict.flaws == {}
    assert (verdict.sent, verdict.confirmed, verdict.done) == (2, 2, 2)
    assert (verdict.duplicates, verdict.max_starts) == (0.0, 1)


def test_a_confirmed_job_that_never_ended_is_lost() -> None:
    rows = [*ran("a"), row("S", "b"), row("C", "b", pid=9)]
    verdict = check(account("abc"), rows, stopped=[9])
    assert verdict.flaws == {"lost": {"b", "c"}}


def test_a_doomed_job_is_lost_when_it_is_no_dead_letter() -> None:
    rows = [*ran("a"), row("S", "b"), row("S", "c")]
    assert check(account("abc", doomed="bc"), rows, dead="bc").flaws == {}
    assert check(account("abc", doomed="bc"), rows, dead="b").lost == {"c"}


def test_a_dead_letter_of_a_job_that_should_succeed_is_lost_and_wrongly_dead() -> None:
    verdict = check(account("a"), [row("S", "a")], dead="a")
    assert verdict.flaws == {"lost": {"a"}, "wrongly_dead": {"a"}}


def test_a_job_of_unknown_outcome_may_be_done_or_not() -> None:
    verdict = check(account(unknown="abc", doomed="c"), ran("a"), dead="c")
    assert verdict.flaws == {}
    assert verdict.recovered == {"a", "c"}


def test_a_refused_job_that_was_done_was_not_refused() -> None:
    assert check(account(refused="ab"), ran("a")).flaws == {"undead": {"a"}}


@pytest.mark.parametrize("rows", [ran("x"), [row("S", "x")]])
def test_a_job_that_nobody_sent_is_unexpected(rows: list[Row]) -> None:
    assert check(account(), rows).flaws == {"unexpected": {"x"}}


def test_a_dead_letter_that_nobody_sent_is_unexpected() -> None:
    assert check(account(), [], dead="x").unexpected == {"x"}


def test_a_second_start_of_one_attempt_is_a_duplicate_and_a_retry_is_none() -> None:
    rows = [row("S", "a"), *ran("a"), row("S", "b"), *ran("b", job_try=2)]
    verdict = check(account("ab"), rows)
    assert verdict.duplicated == {("a", 1): 2}
    assert verdict.done_again == {}
    assert (verdict.starts, verdict.max_starts) == (4, 2)
    assert verdict.duplicates == 1 / 4
    assert check(account("a"), ran("a", "a")).done_again == {("a", 1): 2}


def test_a_run_that_a_stopping_worker_gave_back_is_no_duplicate() -> None:
    rows = [row("S", "a", pid=9), row("C", "a", pid=9), *ran("a")]
    verdict = check(account("a"), rows, stopped=[9])
    assert (verdict.duplicates, verdict.max_starts) == (0.0, 1)
    assert check(account("a"), [*rows, row("S", "a")]).max_starts == 2


def test_a_cancelled_job_counts_unless_its_worker_or_its_parent_was_stopped() -> None:
    rows = [*ran("a"), row("C", "a", pid=8)]
    assert check(account("a"), rows).cancelled == {"a"}
    assert check(account("a"), rows, stopped=[7]).cancelled == {"a"}
    assert check(account("a"), rows, stopped=[8]).flaws == {}
    assert check(account("a"), rows, stopped=[1]).flaws == {}  # the parent of all


def test_a_job_that_ran_before_its_time_is_early() -> None:
    assert check(account("a"), [row("E", "a"), *ran("a")]).flaws == {"early": {"a"}}


@given(
    confirmed=st.frozensets(st.sampled_from("abcdef")),
    done=st.frozensets(st.sampled_from("abcdefgh")),
    doomed=st.frozensets(st.sampled_from("ab")),
    dead=st.frozensets(st.sampled_from("abcdefgh")),
)
def test_nothing_is_found_exactly_when_the_sets_fit(
    confirmed: frozenset[str],
    done: frozenset[str],
    doomed: frozenset[str],
    dead: frozenset[str],
) -> None:
    verdict: Verdict = check(
        account("".join(confirmed), doomed="".join(doomed)), ran(*done), dead=dead
    )
    whole = confirmed - doomed <= done and confirmed & doomed <= dead
    assert (not verdict.lost) == whole
    assert (not verdict.unexpected) == (done | dead <= confirmed)
    assert (not verdict.wrongly_dead) == (dead <= doomed)


async def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (QueueFull("full"), "refused"),
        (Unroutable("where"), "refused"),
        (ConnectionFailed("nobody"), "refused"),
        (OutcomeUnknown("who knows"), "unknown"),
        (ConnectionLost("gone"), "unknown"),
        (BrokerBlocked("alarm"), "unknown"),
    ],
)
async def test_an_error_of_the_transport_is_filed_by_what_it_says(
    error: Exception, kind: str
) -> None:
    made = Account(deadline=1.0)
    assert not await made.keep("a", raising(error))
    assert getattr(made, kind) == made.sent == {"a"}
    assert check(made, []).flaws == {}


async def test_another_error_is_a_surprise() -> None:
    made = Account(deadline=1.0)
    assert not await made.keep("a", raising(KeyError("b")))
    assert check(made, []).flaws == {"surprises": {"a": "KeyError('b')"}}


async def test_an_enqueue_that_outlasts_its_deadline_is_hung() -> None:
    made = Account(deadline=-0.99)
    assert await made.keep("a", asyncio.sleep(0.05))
    assert await made.keep("b", asyncio.sleep(0))
    assert made.hung.keys() == {"a"}
    assert made.longest >= 0.05
    assert [confirm.seconds >= 0.05 for confirm in made.confirms] == [True, False]


async def test_an_enqueue_that_has_to_be_given_up_is_hung() -> None:
    made = Account(deadline=1.0)
    keeping = asyncio.create_task(made.keep("a", asyncio.sleep(30)))
    await asyncio.sleep(0)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert made.hung == {"a": math.inf}
    assert made.unknown == {"a"}


def test_the_log_gives_whole_lines_and_waits_for_the_rest_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "log")
    assert log.rows() == []
    monkeypatch.setenv(LOG_VARIABLE, str(log.path))
    ctx = Context(Message(id="a", task="t", job_try=3), State(), "q")
    note(ctx, "S")
    [first] = log.rows()
    assert first[:3] == ("S", "a", 3)
    with log.path.open("a") as file:
        file.write("D a 3 ")
    assert log.rows() == [first]
    with log.path.open("a") as file:
        file.write("5.5 12 1 1\n")
    assert log.rows("D") == [Row("D", "a", 3, 5.5, 12, 1, redelivered=True)]
    assert log.done() == {"a"}


def test_the_log_tells_when_the_first_of_some_jobs_was_done(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    lines = ["D a 1 5 7 1 0", "D b 1 9 7 1 0", "D c 1 8 7 1 0", "S d 1 8 7 1 0"]
    log.path.write_text("".join(f"{line}\n" for line in lines))
    assert log.first_done("abcd", since=5.5) == 8.0
    assert log.first_done("ab", since=5.5) == 9.0
    assert log.first_done("ad", since=5.5) is None
