"""One module for each library, all with the same three things.

- `Producer`: an async context manager, connected inside, with `enqueue(number)` and
  `enqueue_many(n)`, which return when the broker has confirmed.
- `working(run)`: an async context manager that runs the jobs of the queue inside, up
  to `CONCURRENCY` at a time, by awaiting `run(number, text)`.
- `IMPORT`: Python code, and `HELP`: arguments, both for a fresh interpreter.

The job is always `job(number, "x")`.
"""

import os

URL = os.environ.get("RMQARQ_URL", "")
QUEUE = "benchmark"
AT_ONCE = 500  # concurrent publishes of one gather
CONCURRENCY, PREFETCH = 100, 110
