"""A plugin for a pytest of its own: how long its tests take, what they connect to."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

took: dict[str, float] = {}
touched: list[str] = []


def audit(event: str, _: tuple[Any, ...]) -> None:
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo"):
        touched.append(event)


sys.addaudithook(audit)


def pytest_runtest_logreport(report: Any) -> None:
    took[report.nodeid] = took.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    seen = {"took": took, "touched": touched, "modules": sorted(sys.modules)}
    Path(os.environ["WATCHING"]).write_text(json.dumps(seen), "utf-8")
