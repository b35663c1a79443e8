"""A private RabbitMQ node for tests and benchmarks, and for trying things out.

Needs RabbitMQ and any python3. As a program, it runs a command beside a fresh node:
``python tests/harness/broker.py -- COMMAND ARGS...`` (with RMQARQ_URL set).
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType, TracebackType

HOST = "127.0.0.1"
BOOT_SECONDS = 60.0
HALT_SECONDS = 30.0
AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
EPMD_NAMES = b"\x00\x01n"  # asks the port mapper for all names it knows
SEARCHED = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
# below the ports that the kernel hands out for outgoing connections, so that a
# node which is down for a moment finds its ports free when it comes back
PORTS = range(10240, 32768)

LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
# a short busy wait spares thousands of sleeps between schedulers: it halves the boot
ERLANG_ARGS = (
    "-noinput +B i +S 2:2 +sbwt short +sbwtdio short -start_epmd false"
    " -kernel inet_dist_listen_min {port} inet_dist_listen_max {port} -sname {node} "
)

RABBITMQ_CONF = """\
listeners.tcp.1 = 127.0.0.1:{port}
disk_free_limit.absolute = 50MB
log.file = false
log.console = true
"""
# a shell reads it: beside the directory that RabbitMQ would take by itself
FURTHER_PLUGINS = 'PLUGINS_DIR="${{RABBITMQ_HOME}}/plugins:{}"\n'
# quorum queues refresh the figures of list_queues on their tick (5 s by default)
ADVANCED_CONFIG = """\
[{rabbit, [
  {dead_letter_worker_publisher_confirm_timeout, 5000},
  {quorum_tick_interval, 500}
]}].
"""
# Erlang that the node evaluates at its start: it answers on a port, to those who know
# the cookie, with the value of an expression. rabbitmqctl starts an Erlang of its own
# for each word, which takes a second of a processor.
CONTROL = """\
Cookie = <<"{cookie}">>,
Size = byte_size(Cookie),
Evaluate = fun(Code) ->
    {{ok, Tokens, _}} = erl_scan:string(unicode:characters_to_list(Code)),
    {{ok, Expressions}} = erl_parse:parse_exprs(Tokens),
    case erl_eval:exprs(Expressions, []) of
        {{value, {{text, Text}}, _}} -> Text;
        {{value, Value, _}} -> io_lib:format("~0tp", [Value])
    end
end,
Answer = fun(Socket) ->
    {{ok, <<Cookie:Size/binary, Code/binary>>}} = gen_tcp:recv(Socket, 0),
    Said = try [0, Evaluate(Code)]
           catch _:Problem -> [1, io_lib:format("~0tp", [Problem])] end,
    gen_tcp:send(Socket, unicode:characters_to_binary(Said)),
    gen_tcp:close(Socket)
end,
Serve = fun Serve(Listening) ->
    {{ok, Socket}} = gen_tcp:accept(Listening),
    Waiting = spawn(fun() -> receive go -> Answer(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Waiting),
    Waiting ! go,
    Serve(Listening)
end,
spawn(fun() ->
    {{ok, Listening}} = gen_tcp:listen({port}, [
        binary, {{ip, {{127, 0, 0, 1}}}}, {{packet, 4}}, {{active, false}},
        {{reuseaddr, true}}
    ]),
    Serve(Listening)
end).
"""
# the figures of a queue are kept on the node of its leader
QUEUES = """\
Home = fun(Queue) ->
    case amqqueue:get_pid(Queue) of
        {{_, Node}} -> Node;
        Pid when is_pid(Pid) -> node(Pid);
        _ -> node()
    end
end,
{{text, [
    io_lib:format("~ts~n~s~n", [Name, lists:join(" ", [
        io_lib:format("~w", [proplists:get_value(Item, Row)]) || Item <- [{items}]
    ])]) ||
    Vhost <- rabbit_vhost:list_names(),
    Queue <- rabbit_amqqueue:list(Vhost),
    {{resource, _, queue, Name}} <- [amqqueue:get_name(Queue)],
    Row <- [rpc:call(Home(Queue), rabbit_amqqueue, info, [Queue, [{items}]], 5000)],
    is_list(Row)
]}}."""

# reads lists of process groups until its owner closes the pipe or dies
GUARDIAN = """\
trap '' HUP INT TERM
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group"; done
tries=0
for group in $groups; do
  while kill -s 0 -- "-$group" && [ "$tries" -lt 20 ]; do
    tries=$((tries + 1)); sleep 0.05
  done
done
[ -z "$1" ] || rm -rf -- "$1"
"""

CONNECTIONS = """\
{text, [
    io_lib:format("~w~n~ts~n~0tp~n", [Pid, Name, Properties]) ||
    Pid <- rabbit_networking:connections(),
    [{name, Name}, {client_properties, Properties}] <- [
        catch rabbit_networking:connection_info(Pid, [name, client_properties])
    ]
]}."""

_numbers = itertools.count(1)
_claims: dict[int, socket.socket] = {}


class BrokerError(Exception):
    """The private node could not be found, started or told what to do."""


class Guardian:
    """A tiny process that cleans up when its owner dies before it could."""

    def __init__(self, directory: Path | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", GUARDIAN, "guardian", str(directory or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            start_new_session=True,
        )

    def watch(self, groups: Iterable[int]) -> None:
        """Name the process groups to kill when the owner dies."""
        line = " ".join(map(str, groups)) + "\n"
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode())

    def dismiss(self) -> None:
        """End the watch; only the directory is removed, if it is still there."""
        assert self._process.stdin is not None
        self.watch(())
        self._process.stdin.close()
        self._process.wait()


class Connection(NamedTuple):
    """A connection as the node sees it.

    Args:
        pid: The Erlang process that serves it.
        name: Its addresses.
        properties: What its client said of itself, as Erlang writes it.
    """

    pid: str
    name: str
    properties: str


class Broker:
    """One RabbitMQ node with its own ports, files and port mapper, on loopback.

    Args:
        name: Of the node; unique if not given.
        config: Further lines of rabbitmq.conf.
        plugins: A directory of plugins that RabbitMQ does not bring along.
        enabled: The names of those to be enabled.
        peer: A running node whose port mapper and cookie this one shares, so that
            the two can form a cluster.

    Example:
        with Broker() as broker:
            print(broker.url, broker.queues())
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        config: str = "",
        plugins: Path | None = None,
        enabled: Iterable[str] = (),
        peer: Broker | None = None,
    ) -> None:
        self.name = name or f"rmqarq-{os.getpid()}-{next(_numbers)}"
        self.node = f"{self.name}@localhost"
        self.config = config
        self._plugins = plugins
        self._enabled = tuple(enabled)
        self.cookie = peer.cookie if peer else f"{random.getrandbits(128):032x}"
        self._peer = peer
        self._ports = free_ports(4)
        self.port, self._distribution_port, self._epmd_port, self._control = self._ports
        if peer is not None:
            self._epmd_port = peer._epmd_port
        self.url = f"amqp://guest:guest@{HOST}:{self.port}/"
        self._owner = os.getpid()
        self._home: Path | None = None
        self._guardian: Guardian | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the node's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the node."""
        if self._process is None or self._process.poll() is not None:
            raise BrokerError(f"{self.node} is not running")
        return self._process.pid

    @property
    def home(self) -> Path:
        """The directory that holds every file of the node."""
        if self._home is None:
            raise BrokerError(f"{self.node} has not been started")
        return self._home

    @property
    def log(self) -> str:
        """What the node has logged so far: warnings and errors."""
        return (self.home / "node.log").read_text("utf-8", errors="replace")

    def start(self) -> None:
        """Start the node, with its former data if there is any; return when ready."""
        if self.running:
            raise BrokerError(f"{self.node} is running already")
        scripts = find_scripts()
        try:
            self._prepare()
            self._start_epmd()
            self._process = self._spawn([str(scripts / "rabbitmq-server")])
            self._watch()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """End the node as a crash would (SIGKILL); data and ports are kept."""
        self._end(signal.SIGKILL)

    def halt(self) -> None:
        """End the node in good order (SIGTERM); data and ports are kept."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """End the node in good order and start it again."""
        self.halt()
        self.start()

    def stop(self) -> None:
        """End the node for good: no process and no file of it is left."""
        self._end(signal.SIGKILL)
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        if self._guardian is not None:
            self._guardian.dismiss()
            self._guardian = None
        release(self._ports)
        atexit.unregister(self._stop_at_exit)

    def ctl(self, *args: str, timeout: float = 60) -> str:
        """Run rabbitmqctl against the node and return what it prints."""
        command = [str(find_scripts() / "rabbitmqctl"), "-n", self.node, *args]
        done = subprocess.run(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            said = (done.stderr + done.stdout).strip()
            raise BrokerError(f"rabbitmqctl {' '.join(args)} failed: {said}")
        return done.stdout

    def eval(self, code: str) -> str:
        """Evaluate Erlang expressions inside the node, and give the last one's value.

        Raises:
            BrokerError: It failed, or the node does not answer within 60 s.
        """
        packet = (self.cookie + code).encode()
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                with socket.create_connection((HOST, self._control), 60) as link:
                    link.sendall(len(packet).to_bytes(4, "big") + packet)
                    answer = b"".join(iter(lambda: link.recv(65536), b""))
                break
            except ConnectionRefusedError as error:  # it is just being started
                if not self.running or time.monotonic() > deadline:
                    raise BrokerError(f"{self.node} does not answer") from error
                time.sleep(0.02)
        said = answer[5:].decode("utf-8", "replace")
        if answer[4:5] != b"\0":
            raise BrokerError(f"{code} failed: {said}")
        return said

    def queues(self) -> dict[str, dict[str, int]]:
        """Count the messages and consumers of every queue."""
        columns = ("messages_ready", "messages_unacknowledged", "consumers")
        lines = self.eval(QUEUES.format(items=", ".join(columns))).splitlines()
        return {
            name: dict(zip(columns, map(_figure, figures.split()), strict=True))
            for name, figures in zip(lines[::2], lines[1::2], strict=True)
        }

    def connections(self) -> list[Connection]:
        """Give the connections that are open."""
        lines = iter(self.eval(CONNECTIONS).splitlines())
        return [Connection(*each) for each in zip(lines, lines, lines, strict=True)]

    def enable(self, *plugins: str) -> None:
        """Enable these plugins, and no others, from the next start on."""
        (self.home / "enabled_plugins").write_text(plugin_list(plugins))

    def stop_app(self) -> None:
        """Stop RabbitMQ inside the node, which closes connections politely."""
        self.eval("ok = rabbit:stop().")

    def start_app(self) -> None:
        """Start RabbitMQ inside the node again and wait until it answers."""
        self.eval("ok = rabbit:start().")
        self._wait_until_ready()

    def alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm, which blocks publishing connections."""
        share = 0.00001 if on else 0.4
        self.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({share:f}).")
        deadline = time.monotonic() + 20
        while ("memory" in self.eval("rabbit_alarm:get_alarms().")) is not on:
            if time.monotonic() > deadline:
                raise BrokerError("the alarm did not change within 20 s")
            time.sleep(0.02)

    def _prepare(self) -> None:
        if self._home is not None:
            return
        home = self._home = Path(tempfile.mkdtemp(prefix="rmqarq-broker-"))
        self._guardian = Guardian(home)
        atexit.register(self._stop_at_exit)
        files = {
            "rabbitmq.conf": RABBITMQ_CONF.format(port=self.port) + self.config,
            "advanced.config": ADVANCED_CONFIG,
            "enabled_plugins": plugin_list(self._enabled),
            "rabbitmq-env.conf": FURTHER_PLUGINS.format(self._plugins)
            if self._plugins
            else "",
            ".erlang.cookie": self.cookie,
            "control.erl": CONTROL.format(cookie=self.cookie, port=self._control),
        }
        for name, text in files.items():
            (home / name).write_text(text)
        (home / ".erlang.cookie").chmod(0o400)

    def _environment(self) -> dict[str, str]:
        home, node, port = self.home, self.node, str(self._distribution_port)
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "TMPDIR": tempfile.gettempdir(),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the node: one process id
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_USE_LONGNAME": "false",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_DIST_PORT": port,
            "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_LOG": "warning,-color",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                ERLANG_ARGS.format(node=node, port=port)
                + LOOPBACK_ONLY
                + f" -run file eval {home / 'control.erl'}"
            ),
            "RABBITMQ_CTL_ERL_ARGS": LOOPBACK_ONLY,
            "RABBITMQ_CTL_DIST_PORT_MIN": "0",
            "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        }

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.home / "node.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.home,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _start_epmd(self) -> None:
        running = self._epmd is not None and self._epmd.poll() is None
        if running or self._peer is not None:
            return
        port = str(self._epmd_port)
        self._epmd = self._spawn([find_epmd(), "-port", port, "-address", HOST])
        self._watch()
        deadline = time.monotonic() + BOOT_SECONDS
        while not answers(self._epmd_port, EPMD_NAMES):
            self._check_boot(self._epmd, "epmd", deadline)
            time.sleep(0.005)

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + BOOT_SECONDS
        while not answers(self.port, AMQP_HEADER):
            self._check_boot(self._process, self.node, deadline)
            time.sleep(0.02)

    def _check_boot(
        self, process: subprocess.Popen[bytes], what: str, deadline: float
    ) -> None:
        if process.poll() is not None:
            how = f"ended with code {process.returncode} while starting"
        elif time.monotonic() > deadline:
            how = f"was not ready within {BOOT_SECONDS:.0f} s"
        else:
            return
        raise BrokerError(f"{what} {how}; its log ends:\n{self.log[-3000:]}")

    def _watch(self) -> None:
        processes = (self._epmd, self._process)
        if self._guardian is not None:
            self._guardian.watch(p.pid for p in processes if p is not None)

    def _end(self, signal_number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        helpers = descendants(process.pid)
        process.send_signal(signal_number)
        try:
            process.wait(HALT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        wait_until_gone(helpers)
        self._watch()

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a forked child
            self.stop()


def binary(text: str) -> str:
    """Write a text as Erlang does."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'


def _figure(text: str) -> int:
    return int(text) if text.isdecimal() else 0  # a queue of which nothing is known yet


def plugin_list(names: Iterable[str]) -> str:
    """Write the list of enabled plugins as RabbitMQ reads it: an Erlang term."""
    return f"[{','.join(names)}].\n"


def find_scripts() -> Path:
    """Find the directory of RabbitMQ's own scripts, which work for every user.

    Raises:
        BrokerError: RabbitMQ is not installed.
    """
    chosen = os.environ.get("RMQARQ_TEST_RABBITMQ")  # a directory of scripts
    for pattern in (chosen,) if chosen else SEARCHED:
        for path in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if (path / "rabbitmq-server").exists():
                return path
    raise BrokerError(
        f"RabbitMQ was not found in {chosen or ' or '.join(SEARCHED)};"
        " on Debian, install it with: apt-get install rabbitmq-server"
    )


def find_epmd() -> str:
    """Find Erlang's port mapper.

    Raises:
        BrokerError: Erlang is not installed.
    """
    # scripts of another RabbitMQ may come with the port mapper of its Erlang
    beside = [str(find_scripts()), os.environ.get("PATH", os.defpath)]
    found = shutil.which("epmd", path=os.pathsep.join(beside))
    paths = sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd"))
    if found is None and not paths:
        raise BrokerError(
            "Erlang's epmd was not found;"
            " on Debian, install it with: apt-get install erlang-base"
        )
    return found or str(paths[-1])


def free_ports(count: int) -> list[int]:
    """Pick different TCP ports that nobody listens on, and that nobody else picks.

    Those of a node that is down for a moment are free to listen on, but not to pick.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(PORTS)
        claim = _claim(port)
        if claim is None:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _claims[port] = claim
            ports.append(port)
            continue
        claim.close()
    return ports


def _claim(port: int) -> socket.socket | None:
    """Keep a port from the other processes of tests, for as long as this one lives."""
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform != "linux":
        return claim
    try:
        claim.bind(f"\0rmqarq-port-{port}")  # a name in no directory
    except OSError:
        claim.close()
        return None
    return claim


def release(ports: Iterable[int]) -> None:
    """Let others pick these ports again."""
    for port in ports:
        claim = _claims.pop(port, None)
        if claim is not None:
            claim.close()


def answers(port: int, greeting: bytes) -> bool:
    """Tell whether somebody accepts connections and replies to a greeting."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as probe:
            probe.sendall(greeting)
            return probe.recv(1) != b""
    except OSError:
        return False


def alive(pid: int) -> bool:
    """Tell whether a process is there and not just waiting to be reaped."""
    return _parent_and_state(pid)[1] not in ("", "Z", "X")


def descendants(pid: int) -> list[int]:
    """List the processes below a process (none where there is no /proc)."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    parents = {child: _parent_and_state(child)[0] for child in pids}
    found = [pid]
    for parent in found:
        found += [child for child in pids if parents[child] == parent]
    return found[1:]


def wait_until_gone(pids: list[int], seconds: float = 5.0) -> None:
    """Wait until processes have ended by themselves, else kill them."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in filter(alive, pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _parent_and_state(pid: int) -> tuple[int, str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, ""
    state, parent = text.rpartition(")")[2].split()[:2]
    return int(parent), state


def run_beside(broker: Broker, command: list[str]) -> int:
    """Run a command that finds the node in RMQARQ_URL; return its exit code."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(signal_number: int, frame: FrameType | None) -> None:
        if not children:
            early.append(signal_number)
        # Ctrl-C reaches the whole foreground group, so the child has it already
        elif signal_number != signal.SIGINT or not sys.stdin.isatty():
            children[0].send_signal(signal_number)

    on_signals(pass_on)
    environment = {**os.environ, "RMQARQ_URL": broker.url}
    with subprocess.Popen(command, env=environment) as child:
        children.append(child)
        for signal_number in early:
            pass_on(signal_number, None)
        code = child.wait()
    return code if code >= 0 else 128 - code


def on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle what asks a program to end."""
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, handler)


def _leave(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal_number)


def main(arguments: list[str]) -> int:
    """Run a command beside a fresh node."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print("usage: python tests/harness/broker.py [--] COMMAND ARGS...")
        return 2
    on_signals(_leave)
    try:
        with Broker() as broker:
            print(f"RabbitMQ is ready at {broker.url}", file=sys.stderr, flush=True)
            return run_beside(broker, command)
    except (BrokerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
