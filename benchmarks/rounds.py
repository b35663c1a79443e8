"""The contest's rounds: A B C A B C …, so that a noisy minute hits all of them."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from benchmarks.contest import Contest, Unmeasured
from benchmarks.install import programs
from benchmarks.results import Report, save
from benchmarks.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers import Entry
    from benchmarks.rows import Match
    from tests.harness.broker import Broker


class Rounds:
    """Fills a report with a contest.

    Args:
        report: To be filled.
        file: Where it is kept up to date, so that a long run can be watched.
    """

    def __init__(self, report: Report, file: Path | None = None) -> None:
        self._report = report
        self._file = file

    def run(
        self, broker: Broker, directory: Path, chosen: list[Entry], matches: list[Match]
    ) -> None:
        """Measure every entry in every scenario, `repeat` times."""
        found, missing = programs(chosen)
        for match in matches:
            self._report.contest[match.name] = {}
            self._report.failures[match.name] = dict(missing)
        chosen = [entry for entry in chosen if entry.key in found]
        on_redis = any(entry.peer.broker == "redis" for entry in chosen)
        # rabbitmq-arq keeps results there
        with_redis = on_redis or any(each.name == "rabbitmq_arq" for each in chosen)
        with Stores(broker, with_redis=with_redis) as stores:
            if stores.redis is not None:
                self._report.brokers["Redis"] = stores.redis.version
            contest = Contest(stores, found, directory)
            for match in matches:
                self._match(contest, match, chosen)

    def _match(self, contest: Contest, match: Match, chosen: list[Entry]) -> None:
        chosen = [entry for entry in chosen if entry.competes(match.name)]
        for number in range(0 if match.warm else 1, self._report.repeat + 1):
            for entry in chosen:
                self._once(contest, match, entry, counts=number > 0)
        if self._file is not None:
            save(self._report, self._file)

    def _once(
        self, contest: Contest, match: Match, entry: Entry, *, counts: bool
    ) -> None:
        failures = self._report.failures[match.name]
        if entry.key in failures:
            return
        began = time.monotonic()
        n = match.jobs(entry.weight, self._report.scale)
        try:
            figures = contest.measure(match.name, entry, n)
        except Unmeasured as error:
            failures[entry.key] = str(error)
            self._report.contest[match.name].pop(entry.key, None)
            said = f"not measured: {error}"
        else:
            if counts:
                samples = self._report.contest[match.name]
                samples.setdefault(entry.key, []).append(figures)
            said = ", ".join(f"{k} {v:.4g}" for k, v in figures.items())
        seconds = time.monotonic() - began
        print(
            f"{match.name} {entry.key} ({seconds:.1f} s): {said}",
            file=sys.stderr,
            flush=True,
        )
