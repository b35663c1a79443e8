"""Worker processes of the quiet app, and what their tasks have noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.tools import ROOT
from tests.harness.worker import WorkerProcess

if TYPE_CHECKING:
    from tests.broker.kit import Node

QUIET_APP = "tests.chaos.apps.quiet_app:app"


def quiet_worker(
    node: Node, *flags: str, url: str | None = None, **env: str
) -> WorkerProcess:
    """Make a worker process of the quiet app; settings may be variables."""
    given = {f"RMQARQ_{name.upper()}": value for name, value in env.items()}
    own = {
        "RMQARQ_URL": url or node.broker.url,
        "RMQARQ_QUEUE": node.queue,
        "RMQARQ_TEST_LEDGER": str(node.ledger.path),
    }
    return WorkerProcess(QUIET_APP, flags, cwd=ROOT, env={**own, **given})


def runs(node: Node) -> str:
    """Give a letter for each run."""
    return node.ledger.path.read_text() if node.ledger.path.exists() else ""
