import asyncio
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum

from rmqarq import App, EncodeError, Worker

app = App(queue="arguments", burst=True)


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Order:
    customer: str
    size: Size
    price: Decimal
    due: date


@app.task
async def place(order: Order, notes: tuple[str, ...] = ()) -> None:
    print(f"{order.customer}: {order.size.name}, {order.price} by {order.due:%d %B}")


@app.task
def count(numbers: list[int]) -> int:  # runs in a thread
    print("count", numbers)
    return len(numbers)


async def main() -> None:
    order = Order("Ada", Size.LARGE, Decimal("9.90"), date(2031, 5, 1))
    async with app:
        await place.enqueue(order, notes=("no sugar",))
        await count.enqueue([1, 2, 3])
        try:
            await count.enqueue([1, "two"])  # type: ignore[list-item]
        except EncodeError as error:
            print(error)
        await Worker(app).run()
    print("here:", await count([4, 5]))


asyncio.run(main())
