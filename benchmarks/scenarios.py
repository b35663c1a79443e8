"""What is measured, and what it may take: the budgets as data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One figure with its budget.

    Args:
        figure: Its name in what the child prints.
        label: The same for people, with the unit.
        compare: What is judged: the `ratio` to plain aiormq, the `difference` from it,
            or the `value` itself.
        must: The bound, with slack for a noisy machine.
        stretch: The bound to aim for.
        at_least: The bound is a lower one.
    """

    figure: str
    label: str
    compare: str = "ratio"
    must: float | None = None
    stretch: float | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Scenario:
    """One thing to measure.

    Args:
        name: A function of `child.py`, or one of the runner's own.
        what: What happens, in words.
        n: How many jobs.
        lines: What is judged.
        filled: The jobs are in the queue before.
        rounds: How often, as a multiple of `--repeat`.
    """

    name: str
    what: str
    n: int
    lines: tuple[Line, ...]
    filled: bool = False
    rounds: float = 1.0


CPU, RATE = "CPU µs a job", "jobs a second"

SCENARIOS = (
    Scenario(
        "one_by_one",
        "each enqueue awaited before the next",
        2000,
        (
            Line("cpu", CPU, must=0.6, stretch=0.5),
            Line("rate", RATE, must=1.1, stretch=1.2, at_least=True),
        ),
    ),
    Scenario(
        "gathered",
        "500 enqueues at the same time, again and again",
        5000,
        (
            Line("cpu", CPU, must=0.15),
            Line("rate", RATE, must=3, at_least=True),
        ),
    ),
    Scenario(
        "bulk",
        "`enqueue_many`; plain: gathers of 500",
        20000,
        (
            Line("cpu", CPU, must=0.1),
            Line("rate", RATE, must=3, at_least=True),
        ),
    ),
    Scenario(
        "drain",
        "jobs that do nothing, from the first to the last",
        20000,
        (
            Line("cpu", CPU, must=0.25, stretch=0.2),
            Line("rate", RATE, must=3, at_least=True),
        ),
        filled=True,
    ),
    Scenario(
        "latency",
        "from enqueue to the start of the job, 50 a second",
        500,
        (
            Line("p50", "median ms", must=0.75),
            Line("p99", "99th percentile ms"),
        ),
    ),
    Scenario(
        "naps",
        "jobs that sleep 50 ms, 100 at a time",
        2000,
        (
            Line("ideal", "of the ideal", "value", must=0.93, at_least=True),
            Line("cpu", CPU),
        ),
        filled=True,
    ),
    Scenario(
        "import",
        "CPU time of the import",
        1,
        (
            Line("cpu", "ms", "difference", must=20),
            Line("unwanted", "typer, rich, pydantic loaded", "value", must=0),
        ),
        rounds=1.8,
    ),
    Scenario(
        "help",
        "`rmqarq --help`; plain: `import rmqarq` and a bare typer help",
        1,
        (Line("wall", "ms", "difference", must=60),),
        rounds=1.8,
    ),
    Scenario(
        "start",
        "from the start of the process to the first job",
        1,
        (Line("wall", "ms", must=1.3),),
        filled=True,
        rounds=1.8,
    ),
    Scenario(
        "memory",
        "an idle worker, and its growth by 100 000 jobs",
        100000,
        (
            Line("idle", "RSS MiB", "value", must=36, stretch=31),
            Line("growth", "growth MiB", "value", must=2),
        ),
        rounds=0.6,
    ),
)
