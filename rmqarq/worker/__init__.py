"""The runtime: what turns messages into runs and runs into what follows from them."""

from rmqarq.worker.ending import Ending
from rmqarq.worker.worker import Worker

__all__ = ["Ending", "Worker"]
