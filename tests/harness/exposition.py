"""A strict reader of Prometheus' text format 0.0.4, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import math
import re
from typing import NamedTuple

from tests.harness.broker import HOST

HELP = re.compile(r"# HELP ([a-z_:][a-z0-9_:]*) (.+)")
TYPE = re.compile(r"# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram)")
SAMPLE = re.compile(r"([a-z_:][a-z0-9_:]*)(?:\{(.+)\})? (\S+)")
LABEL = re.compile(r'([a-z_][a-z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
SUFFIXES = ("_bucket", "_sum", "_count")


class Key(NamedTuple):
    name: str
    labels: frozenset[tuple[str, str]]


class Exposition:
    """All samples of one answer; what does not fit the format is an error."""

    def __init__(self, text: str) -> None:
        assert text.endswith("\n")
        self.kinds: dict[str, str] = {}
        self.samples: dict[Key, float] = {}
        described = ""
        family = ""
        for line in text.removesuffix("\n").split("\n"):
            if help_ := HELP.fullmatch(line):
                described = help_[1]
            elif kind := TYPE.fullmatch(line):
                family = kind[1]
                assert family == described, "a type follows its help"
                assert family not in self.kinds, "a family comes once"
                self.kinds[family] = kind[2]
            else:
                self._take(line, family)
        self._check_histograms()

    def _take(self, line: str, family: str) -> None:
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        name, inside, value = sample.groups()
        kind = self.kinds[family]
        ends = SUFFIXES if kind == "histogram" else ("",)
        assert name in [family + end for end in ends], f"{name} stands under {family}"
        assert (kind == "counter") == family.endswith("_total"), family
        labels: dict[str, str] = {}
        at = 0
        while at < len(inside or ""):
            label = LABEL.match(inside, at)
            assert label, line
            assert label[1] not in labels, line
            labels[label[1]] = label[2]
            at = label.end()
        key = Key(name, frozenset(labels.items()))
        assert key not in self.samples, f"twice: {line}"
        self.samples[key] = float(value)
        assert kind == "gauge" or self.samples[key] >= 0, line

    def _check_histograms(self) -> None:
        """Each bucket holds those below it, and the last one all."""
        for family in [
            name for name, kind in self.kinds.items() if kind == "histogram"
        ]:
            series: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
            for key, value in self.samples.items():
                if key.name == f"{family}_bucket":
                    (bound,) = [text for name, text in key.labels if name == "le"]
                    rest = frozenset(each for each in key.labels if each[0] != "le")
                    series.setdefault(rest, []).append((float(bound), value))
            for labels, buckets in series.items():
                assert buckets == sorted(buckets), family
                assert [b for _, b in buckets] == sorted(b for _, b in buckets), family
                assert buckets[-1][0] == math.inf
                assert buckets[-1][1] == self.samples[Key(f"{family}_count", labels)]
                assert Key(f"{family}_sum", labels) in self.samples

    def value(self, name: str, **labels: str) -> float:
        """Give one sample; 0 if there is none."""
        return self.samples.get(Key(name, frozenset(labels.items())), 0.0)

    def series(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        """Give all samples of a name."""
        return {
            key.labels: value for key, value in self.samples.items() if key.name == name
        }


def fetch(
    port: int, path: str, method: str = "GET", timeout: float = 10
) -> tuple[int, str]:
    """Send one request; give the status and the body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(port: int) -> Exposition:
    """Read the metrics of a worker."""
    status, text = fetch(port, "/metrics")
    assert status == 200
    return Exposition(text)
