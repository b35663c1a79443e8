from functools import partial

from litestar import Litestar, post

from rmqarq import App

mail = App(queue="web_litestar_mail")
reports = App(queue="web_litestar_reports")


@mail.task
async def send_mail(subject: str) -> None:
    print(f"mail: {subject}")


@reports.task
async def count(word: str) -> None:
    print(f"{word} has {len(word)} letters")


@post("/orders/{what:str}")
async def order(what: str) -> list[str]:
    jobs = [await send_mail.enqueue(what), await count.enqueue(what)]
    return [job.id for job in jobs]


web = Litestar(
    [order],
    # the shop opens without the broker, too: the next enqueue tries again
    lifespan=[partial(each.connected, required=False) for each in (mail, reports)],
)
