"""Who is measured: what peers.toml says, as data."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

FILE = Path(__file__).with_name("peers.toml")


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """A way to set a library up; what each field means is said in peers.toml."""

    confirmed: bool
    durable: bool
    worker: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    parallel: bool = True
    only: tuple[str, ...] = ()
    apart: bool = False
    weight: float | None = None
    pace: float = 400.0
    note: str = ""


class Peer(Struct, frozen=True, forbid_unknown_fields=True):
    """A library to measure; what each field means is said in peers.toml."""

    title: str
    broker: Literal["rabbitmq", "redis"]
    kind: Literal["queue", "library", "floor"]
    module: str
    requirements: tuple[str, ...]
    default: Variant
    best: Variant | None = None
    classic: Variant | None = None
    quorum: Variant | None = None
    mapped: Variant | None = None
    imports: str = msgspec.field(default="", name="import")
    delays: bool = False
    queue: bool = False
    weight: float = 1.0

    @property
    def variants(self) -> dict[str, Variant]:
        """Every way to set it up, by name."""
        named = {
            "default": self.default,
            "best": self.best,
            "classic": self.classic,
            "quorum": self.quorum,
            "mapped": self.mapped,
        }
        return {name: each for name, each in named.items() if each is not None}


class Entry(Struct, frozen=True):
    """One column of the contest: a library in one of its variants."""

    name: str
    variant: str
    peer: Peer
    settings: Variant

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.name}/{self.variant}"

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.peer.title}, {self.variant}"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed for it, each with its version."""
        return (*self.peer.requirements, *self.settings.extra)

    @property
    def weight(self) -> float:
        """What numbers of jobs are multiplied by."""
        return self.settings.weight or self.peer.weight

    def competes(self, match: str) -> bool:
        """Whether it is measured in a scenario."""
        return not self.settings.only or match in self.settings.only

    @property
    def safe(self) -> bool:
        """On RabbitMQ, durable and confirmed, as rmqarq is."""
        settings = self.settings
        return (
            self.peer.broker == "rabbitmq" and settings.durable and settings.confirmed
        )


def all_peers() -> dict[str, Peer]:
    """Read the file, rmqarq first."""
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), dict[str, Peer])


def entries(names: list[str]) -> list[Entry]:
    """Give every variant of these libraries.

    Args:
        names: Of libraries; `all` stands for all of them.

    Raises:
        ValueError: One is not known.
    """
    peers = all_peers()
    unknown = set(names) - {*peers, "all"}
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {[*peers]}")
    chosen = {n: p for n, p in peers.items() if n in names or "all" in names}
    return [
        Entry(name, variant, peer, settings)
        for name, peer in chosen.items()
        for variant, settings in peer.variants.items()
    ]
