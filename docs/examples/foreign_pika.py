import json
import os
import sys
import time
from typing import Any

import pika
from pika.exceptions import NackError, UnroutableError

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")
QUEUE = "my_queue"


def main() -> None:
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()  # basic_publish waits for the broker's word

        def send(body: dict[str, Any], **properties: Any) -> None:
            channel.basic_publish(
                exchange="",
                routing_key=QUEUE,
                body=json.dumps(body).encode(),
                properties=pika.BasicProperties(
                    content_type="application/json", delivery_mode=2, **properties
                ),
                mandatory=True,
            )

        # the task's name is all that it takes
        send({"task": "process_data", "args": [3001, "update"]})

        # name and job id as properties, arguments by name
        named = {"kwargs": {"data_id": 3002, "action": "update"}}
        send(named, type="process_data", correlation_id="pika-3002")

        # later, and not at all when it is more than an hour late
        soon = {"eta": time.time() + 1.5, "expires": 3600}
        send({"task": "process_data", "args": [3003, "update"], **soon})


try:
    main()
except UnroutableError:
    sys.exit(f"there is no queue {QUEUE}: start a worker once")
except NackError:
    sys.exit(f"the queue {QUEUE} takes no more")
print("sent 3")
