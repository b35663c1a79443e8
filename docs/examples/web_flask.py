from flask import Flask

from rmqarq import App, Portal

tasks = App(queue="web_flask")
portal = Portal(tasks)  # one for the process; it connects at the first call
web = Flask(__name__)


@tasks.task
def send_mail(user_id: int, subject: str) -> None:
    print(f"mail to {user_id}: {subject}")


@web.post("/users/<int:user_id>")
def welcome(user_id: int) -> dict[str, str]:
    job = portal.call(send_mail.enqueue, user_id, subject="welcome")
    return {"job": job.id}
