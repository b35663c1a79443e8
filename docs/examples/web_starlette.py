from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rmqarq import App

mail = App(queue="web_starlette_mail")
reports = App(queue="web_starlette_reports")


@mail.task
async def send_mail(subject: str) -> None:
    print(f"mail: {subject}")


@reports.task
async def count(word: str) -> None:
    print(f"{word} has {len(word)} letters")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[dict[str, str]]:
    print("open the shop")
    async with mail, reports:
        yield {"shop": "corner"}  # the state of requests, as ever
    print("close the shop")


async def order(request: Request) -> JSONResponse:
    what = request.path_params["what"]
    jobs = [await send_mail.enqueue(what), await count.enqueue(what)]
    return JSONResponse({"shop": request.state.shop, "jobs": [job.id for job in jobs]})


web = Starlette(
    lifespan=lifespan, routes=[Route("/orders/{what}", order, methods=["POST"])]
)
