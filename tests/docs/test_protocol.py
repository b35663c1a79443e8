"""Whether other clients in other languages can send jobs, as docs/protocol.md says."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.docs.pages import DOCS, EXAMPLES, code_blocks
from tests.docs.programs import WORKER, end, launch, start
from tests.harness.admin import add_vhost, delete_vhost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.broker import Broker

    Producer: TypeAlias = Callable[[str], subprocess.Popen[str]]

PRODUCERS = ("foreign_pika",)
NODE_PRODUCER = "foreign_amqplib.mjs"
AMQPLIB = "amqplib@2.3.1"
CACHE = Path.home() / ".cache" / "rmqarq" / "tests"
IN_ORDER = [*WORKER, "app:app", "--burst", "--wait-delayed"]


def client_for_node() -> Path:
    """Give the directory where npm has put amqplib: once, outside the repository."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"there is no {'npm' if node else 'node'} on this machine")
    place = CACHE / AMQPLIB
    if not (place / "node_modules" / "amqplib").is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
        made.mkdir()
        command = [npm, "install", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(
            [*command, "--prefix", made, AMQPLIB],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"npm could not install {AMQPLIB}: {done.stderr}"
        try:
            made.rename(place)  # whole, or not at all
        except OSError:  # another test run was quicker
            shutil.rmtree(made)
    return place


@pytest.fixture(params=["pika", "amqplib"])
def producer(request: pytest.FixtureRequest, tmp_path: Path) -> Producer:
    """Start the producer of the page, in Python or in Node."""
    if request.param == "pika":
        return lambda url: start(url, "foreign_pika.py")
    # Node looks for a library beside the program
    (tmp_path / "node_modules").symlink_to(client_for_node() / "node_modules")
    shutil.copy(EXAMPLES / NODE_PRODUCER, tmp_path)
    return lambda url: launch(["node", NODE_PRODUCER], url, cwd=tmp_path)


@pytest.fixture
def url(broker: Broker) -> Iterator[str]:
    """A virtual host of its own: the queue of the page has a fixed name."""
    vhost = f"docs-{secrets.token_hex(4)}"
    yield add_vhost(broker, vhost)
    delete_vhost(broker, vhost)


@pytest.mark.timeout(120)  # npm may have to fetch a library
def test_a_foreign_producer_has_its_jobs_done(producer: Producer, url: str) -> None:
    # it notices that nobody has declared the queue yet, and says what the page says
    said = end(producer(url), code=1)
    assert said == "there is no queue my_queue: start a worker once\n"
    assert "0 completed" in end(start(url, *IN_ORDER))

    assert end(producer(url)) == "sent 3\n"

    printed = end(start(url, *IN_ORDER)).splitlines()
    ran = [line for line in printed if line.startswith("update")]
    numbers = [line.removeprefix("update ").partition(",")[0] for line in ran]
    assert sorted(int(each) % 1000 for each in numbers) == [1, 2, 3], printed
    assert all(line.endswith(", attempt 1") for line in ran)
    assert int(numbers[-1]) % 1000 == 3  # it was to come later
    assert "3 completed ◆ 0 failed ◆ 0 retried ◆ 0 dead-lettered" in printed[-1]


def test_the_page_shows_the_producer_for_node_as_it_is() -> None:
    ((name, code),) = code_blocks(DOCS / "protocol.md", "js")
    assert name == NODE_PRODUCER
    assert code == (EXAMPLES / NODE_PRODUCER).read_text("utf-8")
