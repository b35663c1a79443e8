import json
import os

import pika  # any AMQP client in any language does

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")
SHARDS = [f"bills-{number}" for number in range(4)]


def main() -> None:
    with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("bills", "x-consistent-hash", durable=True)
        for queue in SHARDS:  # they are there: a worker has been started
            channel.queue_bind(queue, "bills", routing_key="1")  # its weight
        for number in range(200):
            customer = f"customer-{number}"
            channel.basic_publish(
                exchange="bills",
                routing_key=customer,  # what is hashed
                body=json.dumps({"task": "bill", "args": [customer, number]}).encode(),
                properties=pika.BasicProperties(
                    content_type="application/json", delivery_mode=2
                ),
                mandatory=True,
            )


main()
print("sent 200")
