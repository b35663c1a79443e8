from typing import Any

from anyio import from_thread
from fastapi import FastAPI

from rmqarq import App

tasks = App(queue="web_fastapi")
web = FastAPI(lifespan=tasks.connected)  # connects at the start, closes at the end


@tasks.task
async def send_mail(user_id: int, subject: str) -> None:
    print(f"mail to {user_id}: {subject}")


@web.post("/users/{user_id}")
async def welcome(user_id: int) -> dict[str, Any]:
    job = await send_mail.enqueue(user_id, "welcome")
    return {"job": job.id}


@web.post("/users/{user_id}/reminders")
def remind(user_id: int) -> dict[str, Any]:  # a plain function runs in a thread
    job = from_thread.run(send_mail.enqueue, user_id, "reminder")
    return {"job": job.id}
