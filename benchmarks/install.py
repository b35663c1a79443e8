"""Installs each library into an environment of its own: `python -m benchmarks.install`.

They are kept under $XDG_CACHE_HOME/rmqarq/benchmarks (~/.cache if not set), named by
what is in them, so that a second run finds them and a changed version makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.peers import Entry, entries

PROJECT = Path(__file__).parent.parent
C_SOURCE = Path(__file__).with_name("c_client.c")
C_PACKAGES = ("librabbitmq-dev", "librabbitmq4")
C_FLAGS = ("-O2", "-std=gnu11", "-Wall")


class NotInstalled(Exception):
    """A library cannot be had here, and why."""


def cache() -> Path:
    """Give the directory that holds all environments."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "rmqarq" / "benchmarks"


def install(entry: Entry) -> Path:
    """Install what an entry needs, unless it is there.

    Returns:
        The program that runs it: a Python, or the C client.

    Raises:
        NotInstalled: It cannot be had here.
    """
    if entry.peer.kind == "floor":
        return _c_client()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    requirements = [each.format(project=PROJECT) for each in entry.requirements]
    wanted = "\n".join((python, *requirements))
    place = cache() / f"{entry.name}-{_digest(wanted.encode())}"
    done = place / "installed.txt"
    if not done.exists():
        print(f"installing {' '.join(requirements)}", file=sys.stderr)
        venv.create(place, clear=True, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q"]
        _run([*pip, "--disable-pip-version-check", *requirements])
        done.write_text(wanted)
    return place / "bin" / "python"


def _c_client() -> Path:
    if shutil.which("gcc") is None:
        raise NotInstalled("gcc is missing; on Debian: apt-get install gcc libc6-dev")
    place = cache() / f"c-{_digest(C_SOURCE.read_bytes())}"
    program = place / "c_client"
    if not program.exists():
        place.mkdir(parents=True, exist_ok=True)
        if not _compile(program, []):
            _compile_with_fetched(place, program)
    return program


def _compile_with_fetched(place: Path, program: Path) -> None:
    root = place / "root"
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotInstalled("librabbitmq's headers are missing, and so is apt-get")
    _run(["apt-get", "download", "-qq", *C_PACKAGES], place)
    for package in place.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)])
    library = next(root.glob("usr/lib/*/librabbitmq.so")).parent
    flags = [f"-I{root}/usr/include", f"-L{library}", f"-Wl,-rpath,{library}"]
    if not _compile(program, flags):
        raise NotInstalled("the C client does not compile with librabbitmq-dev")


def _compile(program: Path, flags: list[str]) -> bool:
    command = ["gcc", *C_FLAGS, *flags, str(C_SOURCE), "-o", str(program)]
    done = subprocess.run(
        [*command, "-lrabbitmq"], capture_output=True, check=False, text=True
    )
    return done.returncode == 0


def _run(command: list[str], place: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=place, capture_output=True, check=False, text=True
    )
    if done.returncode:
        said = (done.stderr + done.stdout).strip()[-300:]
        raise NotInstalled(f"{' '.join(command[:4])} … failed: {said}")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def programs(chosen: list[Entry]) -> tuple[dict[str, Path], dict[str, str]]:
    """Install all of them; give their programs, and why some cannot be had."""
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for entry in chosen:
        try:
            found[entry.key] = install(entry)
        except NotInstalled as error:
            missing[entry.key] = str(error)
            print(f"{entry.key} is left out: {error}", file=sys.stderr)
    return found, missing


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which; all if none.")
    ] = None,
) -> None:
    """Install the libraries that rmqarq is measured beside."""
    found, missing = programs(entries(names or ["all"]))
    for key, program in found.items():
        print(f"{key}: {program}")
    if missing:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
