"""The tables and the picture of the benchmarks, from figures that are made up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks import contest, picture, results, table
from benchmarks.demands import DEMANDS, judge
from benchmarks.peers import FILE, all_peers, entries
from benchmarks.rows import MATCHES, ROWS, Match

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = {entry.key: entry for entry in entries(["all"])}
RATES = {
    "rmqarq/default": [40_000.0, 10_000.0, 42_000.0],
    "rmqarq/best": [60_000.0, 50_000.0, 20_000.0],
    "celery/best": [2_000.0, 3_000.0, 4_000.0],
    "dramatiq/default": [90_000.0, 80_000.0, 70_000.0],
    "dramatiq/best": [5_000.0, 5_100.0, 4_900.0],
    "repid/best": [8_000.0, 8_000.0, 8_000.0],
    "c/default": [70_000.0, 95_000.0, 96_000.0],
}


@pytest.fixture
def report() -> results.Report:
    """A run of three rounds in which one library failed."""
    made = results.new(repeat=3, scale=1)
    made.brokers["RabbitMQ"] = "3.10.8"
    made.contest["drain"] = {
        key: [{"n": 100.0, "rate": rate, "cpu": 1e6 / rate} for rate in rates]
        for key, rates in RATES.items()
    }
    made.contest["bulk"] = made.contest["drain"]
    made.failures["drain"] = {"arq/best": "only 5 of\n 20 jobs were begun"}
    return made


def test_a_result_is_read_as_it_was_written(
    report: results.Report, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    results.save(report, file)
    assert results.load(file) == report


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text('{"machine": "mine"}')
    with pytest.raises(msgspec.ValidationError):
        results.load(file)


def test_an_entry_stands_by_the_median_of_its_rounds(report: results.Report) -> None:
    rate = next(row for row in ROWS if (row.match, row.figure) == ("drain", "rate"))
    cpu = next(row for row in ROWS if (row.match, row.figure) == ("drain", "cpu"))
    ranked = {each.entry.key: each.value for each in results.standings(report, rate)}
    assert ranked["rmqarq/best"] == 50_000
    assert list(ranked)[:2] == ["c/default", "dramatiq/default"]
    assert results.standings(report, cpu)[-1].entry.key == "celery/best"


def test_the_summary_compares_with_queues_that_keep_the_same_promise(
    report: results.Report,
) -> None:
    lines = table.summary(report).splitlines()
    line = next(line for line in lines if line.startswith("| run, jobs per s"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "run, jobs per s",
        "50,000",
        "dramatiq (best) 5,000",
        "10.00x",
        "1",
        "dramatiq (default) 80,000",
    ]


def test_a_demand_names_its_rival_and_whether_it_is_met(report: results.Report) -> None:
    found = {
        (v.demand.match, v.demand.figure, v.demand.beside): v for v in judge(report)
    }
    beside_celery = found["drain", "rate", "Celery"]
    assert beside_celery.ratio == pytest.approx(50 / 3)
    assert beside_celery.met
    beside_all = found["drain", "rate", "queues on RabbitMQ"]
    assert beside_all.rival is not None
    assert beside_all.rival.entry.key == "dramatiq/default"
    assert beside_all.met is False
    assert found["latency", "p50", "queues on RabbitMQ"].met is None
    assert "| no |" in table.demands(report)


def test_everything_that_was_measured_or_not_is_written(report: results.Report) -> None:
    text = table.write(report)
    for key in RATES:
        assert ENTRIES[key].title in text
    assert "- `drain`: only 5 of 20 jobs were begun: arq/best" in text
    assert "acks a job before it runs" in text


def test_the_picture_is_drawn_for_light_and_dark_pages(report: results.Report) -> None:
    svg = picture.draw(report)
    root = ET.fromstring(svg)
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"rmqarq", "Celery", "repid (Redis)", "50,000", "3,000"} <= set(words)
    assert "C (librabbitmq)" not in words
    assert "prefers-color-scheme: dark" in svg
    bars = [
        float(each.attrib["width"])
        for each in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert max(bars) < picture.PANEL


def test_only_what_stands_between_markers_is_written_anew() -> None:
    page = "a\n<!-- brief -->\nold\n<!-- end of brief -->\nb\n"
    assert table.fill(page, {"brief": "new"}) == page.replace("old", "new")
    with pytest.raises(ValueError, match="no markers"):
        table.fill("a page", {})


def test_every_page_of_the_tables_can_be_filled(report: results.Report) -> None:
    for page in table.PAGES:
        texts = table.texts_for(page, report)
        filled = table.fill(page.read_text("utf-8"), texts)
        assert any(text in filled for text in texts.values())


def test_every_library_has_a_module_a_worker_and_fixed_versions() -> None:
    for entry in ENTRIES.values():
        if entry.peer.kind == "floor":
            continue
        assert (FILE.parent / "libraries" / f"{entry.peer.module}.py").exists()
        assert any("{library}" in each for each in entry.settings.worker)
        pinned = [
            each for each in entry.requirements if each not in ("-e", "{project}")
        ]
        assert all(re.fullmatch(r"[\w\[\],.-]+==[\d.]+", each) for each in pinned)


def test_what_is_measured_shown_and_demanded_fits_together() -> None:
    names = {match.name for match in MATCHES}
    assert names == set(contest.MEASURES)
    assert {row.match for row in ROWS} == names
    assert all(demand.row for demand in DEMANDS)
    with pytest.raises(ValueError, match="unknown: nobody"):
        entries(["nobody"])
    assert [*all_peers()][0] == "rmqarq"  # noqa: RUF015 - the file's order


def test_a_library_is_not_tried_at_what_it_does_not_have() -> None:
    assert contest.obstacle("naps", ENTRIES["celery/default"])
    assert contest.obstacle("delayed", ENTRIES["faststream/best"])
    assert contest.obstacle("latency", ENTRIES["c/default"])
    assert contest.obstacle("drain", ENTRIES["c/default"]) is None
    assert contest.obstacle("delayed", ENTRIES["rmqarq/best"]) is None


def test_runs_of_different_scenarios_make_one_table(report: results.Report) -> None:
    other = msgspec.convert(msgspec.to_builtins(report), results.Report)
    other.command = "python -m benchmarks.run --scenario start"
    other.contest = {"start": {"rmqarq/best": [{"n": 1.0, "wall": 300.0}]}}
    other.failures = {}
    assert results.joined([report]) is report
    whole = results.joined([report, other])
    assert whole.contest == {**report.contest, **other.contest}
    text = table.write(whole)
    assert "- start: `python -m benchmarks.run --scenario start`: " in text
    assert "| start, ms | 300 |" in text


def test_a_variant_may_compete_in_some_scenarios_alone() -> None:
    classic, best = ENTRIES["rmqarq/classic"], ENTRIES["rmqarq/best"]
    assert {m.name for m in MATCHES if classic.competes(m.name)} == {"latency"}
    assert all(best.competes(match.name) for match in MATCHES)
    named = {name for each in ENTRIES.values() for name in each.settings.only}
    assert named <= {match.name for match in MATCHES}


def test_slow_libraries_get_fewer_jobs() -> None:
    match = Match("m", "", 1000, "down")
    assert [match.jobs(weight, 1) for weight in (0.5, 1, 4)] == [500, 1000, 1000]
    assert Match("m", "", 1000, "both").jobs(4, 0.5) == 2000
    assert Match("m", "", 1).jobs(4, 0.5) == 1


def test_many_jobs_in_a_message_stand_for_themselves_only(
    report: results.Report,
) -> None:
    late = {"rmqarq/default": 600.0, "rmqarq/mapped": 45.0, "celery/best": 1000.0}
    report.contest["delayed"] = {key: [{"last": ms}] for key, ms in late.items()}
    row = next(row for row in ROWS if row.match == "delayed")
    own = results.ours(results.standings(report, row))
    assert own is not None
    assert own.entry.key == "rmqarq/default"
    found = [each for each in judge(report) if each.demand.match == "delayed"]
    assert [(each.ratio, each.met) for each in found] == [(0.045, True), (0.6, False)]
    lines = table.demands(report).splitlines()
    told = [line for line in lines if "due at once" in line]
    assert ["45 (mapped)" in line for line in told] == [True, False]
