import asyncio
import json
import os

import aiormq  # any AMQP client in any language does

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")


async def main() -> None:
    connection = await aiormq.connect(URL)
    channel = await connection.channel()  # with publisher confirms
    await channel.basic_publish(
        json.dumps({"task": "process_data", "args": [2000, "update"]}).encode(),
        exchange="",
        routing_key="my_queue",
        properties=aiormq.spec.Basic.Properties(
            content_type="application/json", delivery_mode=2
        ),
        mandatory=True,
    )
    print("sent")
    await connection.close()


asyncio.run(main())
