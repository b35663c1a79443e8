from datetime import timedelta

from rmqarq import App, Portal

app = App(queue="script")


@app.task
def greet(name: str) -> None:
    print("hello", name)


with Portal(app) as portal:
    job = portal.call(greet.enqueue, "Ada")
    print(job.task, "on", job.queue)
    portal.call(greet.defer, timedelta(seconds=1), "Bob")
    jobs = portal.call(app.enqueue_many, [greet.job("Cy"), greet.job("Di").defer(0.5)])
    print(len(jobs), "more")
