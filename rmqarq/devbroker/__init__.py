"""An AMQP 0-9-1 broker in memory, for trial and tests.

It speaks the protocol as RabbitMQ 3.10 does, its sentences included, and needs nothing
but Python. It is no production broker: it writes nothing to disk, knows one node and no
permissions, and everything in it is gone when it ends.
"""

from rmqarq.devbroker.broker import Broker, Depth
from rmqarq.devbroker.clock import Clock

__all__ = ["Broker", "Clock", "Depth"]
