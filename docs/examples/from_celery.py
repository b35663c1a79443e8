import asyncio

from rmqarq import App, Backoff, Context, Reject

app = App(queue="from_celery")  # a result backend is not needed, and not there


class ShopClosed(Exception):
    pass


@app.task(
    name="shop.order",
    max_retries=5,
    retry_on=(ShopClosed,),
    backoff=Backoff(base=0.2, maximum=60),
    timeout=30,
)
def order(ctx: Context, item: str) -> None:  # runs in a thread: it may block
    if item == "bread" and ctx.job_try == 1:
        raise ShopClosed
    if item == "gold":
        raise Reject("not for sale")
    print(f"{item} ordered after {ctx.job_try - 1} retries")


async def send() -> None:
    async with app:
        await order.enqueue("tea")
        await order.defer(0.3, "cake")
        await order.options(job_id="bread-1", expires=600).enqueue("bread")
        await app.enqueue_many([order.job(item) for item in ("milk", "gold")])
        await app.ref("shop.order").enqueue("jam")  # by its name alone


def send_from_a_plain_program() -> None:
    asyncio.run(send())


if __name__ == "__main__":
    send_from_a_plain_program()
