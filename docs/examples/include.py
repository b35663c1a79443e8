import asyncio

from rmqarq import App, Worker

mail = App(queue="included_mail")
shop = App()  # names no queue


@mail.task
async def welcome(name: str) -> None:
    print("welcome", name)


@shop.task
async def sell(item: str) -> None:
    print("sell", item)


app = App(queue="including", burst=True)
app.include(mail, shop)


async def main() -> None:
    async with app:
        print(await welcome.enqueue("Ada"))
        print(await sell.enqueue("tea"))
        await Worker(app).run()


asyncio.run(main())
