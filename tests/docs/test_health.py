"""Whether docs/health.md names the numbers, times and names that are really there."""

from __future__ import annotations

import re
from typing import get_args

from rmqarq import Settings
from rmqarq.stats import Stats
from rmqarq.worker import endpoint, health, watchdog
from rmqarq.worker.health import Facts
from rmqarq.worker.metrics import Fate, Metrics
from tests.docs.pages import DOCS, rows, section
from tests.harness.exposition import Exposition

PAGE = DOCS / "health.md"
TEXT = PAGE.read_text("utf-8")


def served() -> Exposition:
    return Exposition(Metrics({}, ()).text(Facts(), Stats(), ready=True))


def test_the_table_of_metrics_is_what_is_served() -> None:
    listed = {row[0].strip("`"): row[2] for row in rows(PAGE) if len(row) == 4}
    assert listed.pop("name") == "kind"
    assert listed == served().kinds


def test_the_alerts_ask_for_metrics_that_are_served() -> None:
    families = served().kinds
    histograms = [name for name, kind in families.items() if kind == "histogram"]
    known = {*families, *(f"{name}_bucket" for name in histograms)}
    asked = set(re.findall(r"\brmqarq_\w+", section(PAGE, "Alerts")))
    assert len(asked) >= 7
    assert asked <= known


def test_every_outcome_is_explained() -> None:
    named = {row[0].strip("`") for row in rows(PAGE) if len(row) == 2}
    assert set(get_args(Fate)) <= named


def test_the_times_on_the_page_are_those_of_the_code() -> None:
    assert f"no consumer for {health.UNCONSUMED:.0f} seconds" in TEXT
    assert f"after {watchdog.PATIENCE:.0f} seconds" in TEXT
    assert f"within {endpoint.PATIENCE:.0f} seconds" in TEXT
    assert f"more than {endpoint.MOST} at a time" in TEXT
    interval = Settings().health_check_interval
    assert f"`health_check_interval` seconds ({interval:g})" in TEXT


def test_every_variable_on_the_page_is_a_setting() -> None:
    known = {f"RMQARQ_{name.upper()}" for name in Settings.__struct_fields__}
    assert set(re.findall(r"\bRMQARQ_[A-Z_]+", TEXT)) <= known
