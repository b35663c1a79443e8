"""One module for each library, all with the same few things.

- `Producer`: an async context manager, connected inside. `enqueue(number)` and
  `enqueue_many(n)` return when the broker has confirmed, where the library can wait for
  that. `defer_many(n, due)` sends jobs that shall begin at the moment `due`, in seconds
  since the epoch; only where the library can delay.
- A worker for the same jobs, which peers.toml says how to start. The job is always
  `benchmarks.tally.job(number, "x")`, or its twin that blocks.

rmqarq and plain aiormq, which are compared inside one process as well, have two more:

- `working(run)`: an async context manager that runs the jobs of the queue inside, up
  to `CONCURRENCY` at a time, by awaiting `run(number, text)`.
- `IMPORT`: Python code, and `HELP`: arguments, both for a fresh interpreter.
"""

import os

URL = os.environ.get("RMQARQ_URL", "amqp://guest:guest@localhost:5672/")
REDIS = os.environ.get("BENCH_REDIS", "redis://localhost:6379")
VARIANT = os.environ.get("BENCH_VARIANT", "default")  # or best, classic, quorum, mapped
BEST = VARIANT != "default"  # the library's best settings
QUEUE = "benchmark"
AT_ONCE = 500  # concurrent publishes of one gather
CONCURRENCY, PREFETCH = 100, 110
