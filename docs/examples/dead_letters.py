import asyncio
import os
import sys
from typing import Any

import aiormq

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")


async def dead_letters(queue: str) -> list[dict[str, Any]]:
    """Read the headers of all dead letters and leave the messages where they are."""
    found: list[dict[str, Any]] = []
    connection = await aiormq.connect(URL)
    try:
        channel = await connection.channel()
        while True:
            letter = await channel.basic_get(queue)
            if letter.delivery_tag is None:  # that was the last one
                return found
            properties = letter.header.properties
            found.append(
                {"task": properties.message_type, **(properties.headers or {})}
            )
    finally:
        await connection.close()  # what was not acked goes back to its place


async def main(queue: str) -> None:
    for letter in await dead_letters(queue):
        print(
            f"{letter['task']}: {letter.get('x-rmqarq-reason', 'put here by RabbitMQ')}"
            f" (attempts: {letter.get('x-rmqarq-attempts', '?')}),"
            f" {letter.get('x-rmqarq-error', 'no error')}:"
            f" {letter.get('x-rmqarq-message', '-')}"
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
