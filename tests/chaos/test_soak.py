"""Everything goes wrong, one thing after the other, and nothing is lost."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos import engine, faults
from tests.harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = int(os.environ.get("RMQARQ_CHAOS_SEED", "20"))
RATE = 210.0


@pytest.fixture
def node() -> Iterator[Cluster]:
    """One node of its own, to be ill-treated."""
    with Cluster(1) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_confirmed_job_is_lost_whatever_fails(
    node: Cluster, tmp_path: Path
) -> None:
    plan = engine.Plan(seconds=45.0, rate=RATE, workers=2, seed=SEED, faults=faults.ALL)
    result = await engine.run(node, tmp_path, plan)
    print(json.dumps(result.figures()))
    result.assert_nothing_lost()
    assert result.counts.keys() == faults.ALL.keys()
    assert result.verdict.duplicates <= 0.01
    assert result.offered >= 200
