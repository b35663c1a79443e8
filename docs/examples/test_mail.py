from datetime import UTC, datetime, timedelta

import pytest

from rmqarq import App, Backoff, Context
from rmqarq.testing import Harness, world

app = App(queue="mail")
sent: list[str] = []
away = False


@app.task(max_retries=2, backoff=Backoff(base=60, jitter=0))
async def welcome(email: str) -> None:
    if away:
        raise ConnectionError("no mail server")
    sent.append(email)


@app.task
async def report(ctx: Context) -> None:
    sent.append(f"report of {ctx.enqueued_at:%d %B}")
    await report.defer(timedelta(days=1))


@app.consume("signups")
async def signed_up(event: dict[str, str]) -> None:
    await welcome.defer(3600, event["email"])


@pytest.fixture(autouse=True)
def nothing_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent.clear()
    monkeypatch.setitem(globals(), "away", False)


async def test_a_welcome_is_sent_an_hour_later() -> None:
    async with world(app) as w:
        await welcome.defer(3600, "ada@example.com")
        await w.run()  # what is due now: nothing
        assert sent == []
        await w.advance(hours=1)  # moves time, and runs what falls due in it
        assert sent == ["ada@example.com"]
        w.assert_enqueued(welcome, "ada@example.com")
        assert w.dead == []


async def test_a_failure_is_raised_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "away", True)
    async with world(app) as w:
        await welcome.enqueue("ada@example.com")
        with pytest.raises(ConnectionError):
            await w.run()
        assert w.delayed[0].due == w.now + timedelta(seconds=60)
        monkeypatch.setitem(globals(), "away", False)
        await w.advance(seconds=60)
        assert sent == ["ada@example.com"]


async def test_what_never_works_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "away", True)
    async with world(app, raises=False) as w:
        await welcome.enqueue("ada@example.com")
        await w.advance(days=1)
        letter = w.assert_dead(welcome, "ada@example.com")
        assert (letter.reason, letter.tries) == ("retries used up", 3)
        assert (letter.error, letter.message) == ("ConnectionError", "no mail server")


async def test_the_report_comes_every_day() -> None:
    async with world(app, now=datetime(2028, 2, 28, 6, tzinfo=UTC)) as w:
        await report.enqueue()
        await w.advance(days=2)
        assert sent[0] == sent[1] == "report of 28 February"  # enqueued, and run
        assert sent[2] == "report of 29 February"
        assert [each.at.day for each in w.done] == [28, 29, 1]


async def test_who_signs_up_elsewhere_is_welcomed() -> None:
    async with world(app) as w:
        await w.publish("signups", {"email": "bob@example.com"})
        await w.run()
        assert w.assert_enqueued(welcome, "bob@example.com").delay == 3600


async def test_the_executor_alone() -> None:
    async with Harness(app) as h:
        outcome = await h.run(welcome, "ada@example.com")
        assert type(outcome).__name__ == "Succeeded"
        await report.options(headers={"by": "hand"}).enqueue()
        assert h.enqueued[0].headers == {"by": "hand"}
