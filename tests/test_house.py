"""The rules of the house: what may import what, how large, how named, how worded."""

from __future__ import annotations

import ast
import pickle
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

import rmqarq
import rmqarq.cli
import rmqarq.devbroker
import rmqarq.testing
import rmqarq.worker
from tests import catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "rmqarq"
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

FLOORS: dict[str, list[str]] = {
    "words": [
        "door",
        "version",
        "when",
        "errors",
        "url",
        "message",
        "outcome",
        "context",
        "language",
        "records",
        "logs",
        "settings",
        "backoff",
        "stats",
    ],
    "wire": [
        "wire.frames",
        "wire.properties",
        "wire.relay",
        "wire.origin",
        "wire.names",
        "wire.delay",
        "wire.topology",
        "wire.permission",
        "wire.publication",
        "wire.codec",
        "wire.media",
        "wire.foreign",
        "wire.tap",
        "wire.pulse",
        "wire.connection",
        "wire.refusal",
        "wire.opening",
        "wire.link",
        "wire.publisher",
        "wire.consumer",
        "wire.declare",
        "wire.plugin",
        "wire.probe",
        "wire.declarer",
        "wire.reading",
        "wire.attempts",
        "wire.sender",
        "wire.transport",
    ],
    "what users write": [
        "hints",
        "decoders",
        "equality",
        "signature",
        "home",
        "incoming",
        "body",
        "job",
        "middleware",
        "priorities",
        "outbox",
        "rows",
        "threads",
        "transports",
        "sending",
        "policy",
        "function",
        "task",
        "decorator",
        "handler",
        "registry",
        "connected",
        "app",
        "portal",
        "loader",
    ],
    "worker": [
        "worker.ending",
        "worker.event_loop",
        "worker.admission",
        "worker.chunk",
        "worker.burst",
        "worker.rungs",
        "worker.history",
        "worker.waiting",
        "worker.judge",
        "worker.health",
        "worker.roster",
        "worker.lifespan",
        "worker.executor",
        "worker.metrics",
        "worker.formats",
        "worker.pipe",
        "worker.interpreter",
        "worker.isolated",
        "worker.isolation",
        "worker.reports",
        "worker.followup",
        "worker.obituary",
        "worker.settle",
        "worker.intake",
        "worker.watchdog",
        "worker.stack",
        "worker.dispatcher",
        "worker.rounds",
        "worker.endpoint",
        "worker.monitor",
        "worker.worker",
        "worker.process",
        "worker.line",
        "worker.supervised",
        "worker.restarts",
        "worker.changes",
        "worker.child",
        "worker.supervisor",
    ],
    "operations": [
        "letters",
        "admin",
        "box",
        "probe",
        "findings",
        "case",
        "review",
        "remedies",
        "grant",
        "diagnosis",
        "delays",
        "doctor",
    ],
    "dev broker": [
        "devbroker.clock",
        "devbroker.fields",
        "devbroker.frames",
        "devbroker.refusal",
        "devbroker.checks",
        "devbroker.arguments",
        "devbroker.equivalence",
        "devbroker.properties",
        "devbroker.message",
        "devbroker.deaths",
        "devbroker.store",
        "devbroker.matching",
        "devbroker.exchange",
        "devbroker.consumer",
        "devbroker.limits",
        "devbroker.queue",
        "devbroker.forwarder",
        "devbroker.host",
        "devbroker.link",
        "devbroker.publishing",
        "devbroker.channel",
        "devbroker.naming",
        "devbroker.exchange_methods",
        "devbroker.queue_methods",
        "devbroker.consuming",
        "devbroker.handshake",
        "devbroker.realm",
        "devbroker.session",
        "devbroker.connection",
        "devbroker.broker",
    ],
    "testing": [
        "testing.foreign",
        "testing.sightings",
        "testing.reader",
        "testing.gate",
        "testing.witness",
        "testing.wanted",
        "testing.spans",
        "testing.stage",
        "testing.worlds",
        "testing.paper",
        "testing.harness",
        "testing.plugin",
    ],
    "command line": [
        "cli.output",
        "cli.translated",
        "cli.target",
        "cli.picking",
        "cli.progress",
        "cli.showing",
        "cli.done",
        "cli.run",
        "cli.check",
        "cli.tasks",
        "cli.doctor",
        "cli.broker",
        "cli.stream",
        "cli.producer",
        "cli.dev",
        "cli.queue",
        "cli.dlq",
        "cli.lost",
        "cli.main",
    ],
}
"""A file imports only from the files before it, for type checkers likewise."""

DOORS = {"", "__main__", "wire", "worker", "devbroker", "testing", "cli"}
"""They hold no code of their own; what they open must stand before who goes through."""

LATE_IMPORTS = {
    ("hints", "annotationlib"),  # exists from Python 3.14 on
    # each takes a millisecond or more, and most programs need none of them
    ("language", "gettext"),
    ("records", "json"),
    ("settings", "difflib"),
    ("threads", "anyio"),
    ("threads", "anyio.to_thread"),
}

NEWER_THAN_3_11 = {"annotationlib"}

BROUGHT_ALONG = {("testing.plugin", "pytest")}
"""Who loads the one has the other."""

MAY_IMPORT: dict[str, set[str]] = {
    "aiormq": {
        "wire.connection",
        "wire.consumer",
        "wire.declare",
        "wire.opening",
        "wire.probe",
        "wire.publisher",
        "wire.refusal",
    },
    "pamqp": set(),
    "yarl": {"wire.opening"},
    "typer": {
        "cli.check",
        "cli.broker",
        "cli.dev",
        "cli.dlq",
        "cli.done",
        "cli.doctor",
        "cli.lost",
        "cli.main",
        "cli.output",
        "cli.picking",
        "cli.progress",
        "cli.queue",
        "cli.run",
        "cli.showing",
        "cli.target",
        "cli.translated",
    },
    "rich": set(),
    "pydantic": set(),
}
"""Who may import a library; for type checkers likewise."""

LONG_FUNCTIONS: set[str] = set()
MANY_PARAMETERS = {
    "cli.dlq.drop",  # one parameter a flag
    "cli.dlq.list_",
    "cli.dlq.requeue",
    "cli.lost.list_",
    "cli.lost.requeue",
    "cli.run.run",
}

UNTRANSLATABLE = {
    "signature": {"error.template"},  # the sentence of another error, word for word
    "errors": {"error.template"},
    "cli.doctor": {"given.template"},  # these four hand on what stands elsewhere
    "cli.output": {"sentence"},
    "cli.target": {"question"},
    "cli.translated": {"template"},
}
CODE = re.compile(r"(rmqarq|rabbitmqctl) [^,;]+|\w+(=|: )\S+")
"""What is a command or a line of settings and no sentence: the same everywhere."""

FORBIDDEN_FILES = {"utils", "common", "helpers", "base", "abc", "types", "manager"}
FORBIDDEN_CLASSES = re.compile(r"_?(Base|Abstract)[A-Z]\w*|\w+(Manager|Data|Mixin)")


# --- reading the package ---


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without `rmqarq.`."""
    found: dict[str, ast.Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name] = ast.parse(path.read_text("utf-8"), str(path))
    return found


def path_of(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every imported module, absolute; `from a import b` gives `a.b` if it is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, node) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = node.module or ""
            for each in node.names:
                inner = f"{base}.{each.name}".removeprefix("rmqarq").lstrip(".")
                is_module = base.startswith("rmqarq") and inner in modules()
                yield (f"rmqarq.{inner}" if is_module else base), node


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its dotted name, those inside others included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def every_function() -> Iterator[tuple[str, Function]]:
    for name, tree in modules().items():
        for inner, node in functions(tree):
            yield f"{name}.{inner}".lstrip("."), node


def ours(name: str) -> str | None:
    """The name within the package, or `None` for somebody else's module."""
    if name == "rmqarq" or name.startswith("rmqarq."):
        return name.removeprefix("rmqarq").lstrip(".")
    return None


# --- floors ---


def test_the_floors_name_every_file() -> None:
    named = [name for floor in FLOORS.values() for name in floor]
    assert len(named) == len(set(named))
    assert set(named) | DOORS == set(modules())


def test_a_file_imports_only_from_the_files_before_it() -> None:
    order = {
        name: place
        for place, name in enumerate(
            each for floor in FLOORS.values() for each in floor
        )
    }
    upward = [
        f"{name}:{node.lineno} imports {imported}"
        for name, place in order.items()
        for imported, node in imports(modules()[name])
        if (inner := ours(imported)) is not None
        and inner not in DOORS
        and order[inner] >= place
    ]
    assert upward == []


def test_a_door_is_only_used_from_above_its_floor() -> None:
    floors = list(FLOORS)
    floor_of = {name: floors.index(floor) for floor in FLOORS for name in FLOORS[floor]}
    doors = ("wire", "worker", "devbroker", "testing", "cli", "", "__main__")
    height = dict(zip(doors, (1, 3, 5, 6, 7, 8, 9), strict=True))
    height["testing"] = 5  # the plugin of pytest goes through it
    wrong = [
        f"{name}:{node.lineno} goes through {imported}"
        for name, floor in floor_of.items()
        for imported, node in imports(modules()[name])
        if (inner := ours(imported)) in height and height[inner] >= floor
    ]
    assert wrong == []


def test_the_dev_broker_knows_nothing_of_rmqarq_and_only_its_users_know_it() -> None:
    """It shall stay a broker, not become a part of what it is there to try out."""
    for name, tree in modules().items():
        within = name.partition(".")[0] == "devbroker"
        for imported, _ in imports(tree):
            inner = ours(imported)
            if within:
                own = inner is not None and inner.startswith("devbroker")
                top = imported.partition(".")[0]
                assert own or top in sys.stdlib_module_names, f"{name}: {imported}"
            elif inner is not None and inner.partition(".")[0] == "devbroker":
                assert name.partition(".")[0] in ("cli", "testing"), name


def test_no_import_hides_in_a_function() -> None:
    hidden = {
        (name, imported)
        for name, tree in modules().items()
        for _, function in functions(tree)
        for imported, _ in imports(function)
    }
    assert hidden == LATE_IMPORTS


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        name
        for name, tree in modules().items()
        for imported, _ in imports(tree)
        if imported.partition(".")[0] == library
    }
    assert users == MAY_IMPORT[library]


def test_frames_imports_nothing_but_the_standard_library() -> None:
    for imported, _ in imports(modules()["wire.frames"]):
        assert imported.partition(".")[0] in sys.stdlib_module_names


def test_what_is_imported_is_declared() -> None:
    """Transitive dependencies come and go without notice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[<>=;\[ ]", each)[0] for each in project["dependencies"]}
    for name, tree in modules().items():
        for node in tree.body:  # at run time; what only type checkers see may be more
            for imported, _ in imports(node) if not is_type_checking(node) else ():
                top = imported.partition(".")[0]
                if (name, top) in BROUGHT_ALONG:
                    continue
                if top not in {*sys.stdlib_module_names, *NEWER_THAN_3_11, "rmqarq"}:
                    assert top in declared, f"{name} imports {top}"


def is_type_checking(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def test_only_the_codec_and_the_decoders_build_coders_of_msgspec() -> None:
    builders: set[str] = set()
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in (
                "Decoder",
                "Encoder",
                "decode",
                "encode",
            ):
                text = ast.unparse(node.value)
                if re.fullmatch(r"msgspec(\.(json|msgpack|yaml|toml))?|module", text):
                    builders.add(name)
    assert builders <= {"wire.codec", "decoders", "worker.pipe"}
    assert "wire.codec" in builders


# --- the door ---


def exported(module: ModuleType) -> list[str]:
    return list(module.__all__)


@pytest.mark.parametrize(
    "module",
    [rmqarq, rmqarq.worker, rmqarq.devbroker, rmqarq.testing, rmqarq.cli],
    ids=lambda each: each.__name__,
)
def test_all_is_sorted_and_complete(module: ModuleType) -> None:
    names = exported(module)
    assert names == sorted(names)
    assert all(hasattr(module, name) for name in names)
    assert set(names) <= set(dir(module))
    assert set(names) == set(imported_by(module))


def imported_by(module: ModuleType) -> dict[str, str | None]:
    """Where a door has its names from, those that only type checkers see included."""
    (tree,) = [modules()[ours(module.__name__) or ""]]
    seen = [
        *tree.body,
        *(
            inner
            for node in tree.body
            if isinstance(node, ast.If)
            for inner in node.body
        ),
    ]
    return {
        each.asname or each.name: node.module
        for node in seen
        if isinstance(node, ast.ImportFrom)
        for each in node.names
        if not each.asname and each.name != "TYPE_CHECKING"
    }


@pytest.mark.parametrize(
    "module", [rmqarq, rmqarq.testing], ids=lambda each: each.__name__
)
def test_a_name_is_loaded_from_where_type_checkers_see_it(module: ModuleType) -> None:
    homes: dict[str, str] = vars(module)["_HOMES"]
    assert list(homes) == sorted(homes)
    assert homes == imported_by(module)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'rmqarq' has no attribute 'Foo'"):
        getattr(rmqarq, "Foo")  # noqa: B009 - type checkers know that, too


def test_what_a_door_gives_can_be_pickled() -> None:
    for name in rmqarq.__all__:
        value = getattr(rmqarq, name)
        assert pickle.loads(pickle.dumps(value)) is value or name == "__version__"


def test_the_package_alone_loads_nothing() -> None:
    program = "import sys, rmqarq, rmqarq.testing; print(*sorted(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = set(shown.stdout.split())
    assert {name for name in loaded if ours(name) is not None} == {
        "rmqarq",
        "rmqarq.door",
        "rmqarq.testing",
    }
    heavy = {"asyncio", "importlib.metadata", "msgspec", "aiormq", "pamqp", "anyio"}
    assert loaded & heavy == set()


def test_importing_the_app_is_light() -> None:
    program = "import sys; from rmqarq import *; print(*sorted(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = set(shown.stdout.split())
    assert "rmqarq.app" in loaded
    heavy = {"typer", "click", "rich", "shellingham", "pydantic", "prometheus_client"}
    heavy |= {"fastapi", "starlette", "litestar", "django", "flask"}
    heavy |= {"rmqarq.cli", "rmqarq.testing", "rmqarq.devbroker"}
    assert loaded & heavy == set()


# --- sizes ---


def test_no_module_is_longer_than_400_lines() -> None:
    sizes = {
        name: len(path_of(name).read_text("utf-8").splitlines()) for name in modules()
    }
    assert {name: size for name, size in sizes.items() if size > 400} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    long = {
        name
        for name, node in every_function()
        if (node.end_lineno or 0) - node.lineno + 1 > 50
    }
    assert long == LONG_FUNCTIONS


def test_no_function_takes_more_than_7_parameters() -> None:
    def count(node: Function) -> int:
        given = node.args
        names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
        return len([each for each in names if each.arg not in ("self", "cls")])

    many = {name for name, node in every_function() if count(node) > 7}
    assert many == MANY_PARAMETERS


# --- names and words ---


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {part for name in modules() for part in name.split(".")}
    assert not names & FORBIDDEN_FILES


def test_no_class_has_a_name_that_says_nothing() -> None:
    wrong = [
        f"{name}.{node.name}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and FORBIDDEN_CLASSES.fullmatch(node.name)
    ]
    assert wrong == []


def undocumented(tree: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not is_overload(node):
                yield name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, name)


def is_overload(node: ast.ClassDef | Function) -> bool:
    return any(ast.unparse(each) == "overload" for each in node.decorator_list)


def test_everything_public_says_what_it_is() -> None:
    missing = [
        name
        for module, tree in modules().items()
        for name in (
            *([] if ast.get_docstring(tree) else [module or "rmqarq"]),
            *undocumented(tree, module),
        )
    ]
    assert missing == []


def test_type_ignores_name_their_code_and_are_few() -> None:
    lines = [
        (name, line)
        for name in modules()
        for line in path_of(name).read_text("utf-8").splitlines()
    ]
    ignores = [pair for pair in lines if re.search(r"(type|pyright): ignore", pair[1])]
    assert [each for each in ignores if not re.search(r"ignore\[[\w-]+", each[1])] == []
    assert len(ignores) <= max(2, 2 * len(lines) // 1000)


MACHINE = re.compile(
    r"(?<![\w./-])/(work|root|home/\w+|opt/[\w-]+|tmp/(?!\S*\{)[\w-]+/)"
)
BORING = {".git", ".venv", "__pycache__", ".hypothesis", ".pytest_cache"}
BORING |= {".mypy_cache", ".ruff_cache", "dist", "build"}
BORING |= {f".venv-3.{minor}" for minor in range(11, 15)}  # of tests/run --all-pythons


def files_of_the_project() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = set(path.relative_to(ROOT).parts)
        if path.is_file() and not parts & BORING and path.suffix not in (".pyc", ".mo"):
            yield path


def test_no_file_names_a_place_on_the_machine_it_was_written_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files_of_the_project()
        if path != Path(__file__)
        for number, line in enumerate(
            path.read_text("utf-8", errors="replace").splitlines(), 1
        )
        if MACHINE.search(line)
    ]
    assert found == []


# --- the Chinese catalogue ---


def test_every_sentence_has_its_chinese_and_none_is_left_over() -> None:
    written, translated = catalogue.sentences(), catalogue.translations()
    assert sorted(written - translated.keys()) == [], "run: tests.catalogue update"
    assert sorted(translated.keys() - written) == [], "run: tests.catalogue update"
    assert [text for text, chinese in translated.items() if not chinese] == []


def test_a_translation_has_the_placeholders_of_its_sentence() -> None:
    differing = [
        sentence
        for sentence, chinese in catalogue.translations().items()
        if chinese
        and catalogue.placeholders(sentence) != catalogue.placeholders(chinese)
    ]
    assert differing == []


def test_a_translation_is_chinese() -> None:
    english = [
        sentence
        for sentence, chinese in catalogue.translations().items()
        if chinese
        and not re.search("[\u4e00-\u9fff]", chinese)
        and re.search("[a-z]{3}", catalogue.without_placeholders(sentence))
        and not (CODE.fullmatch(sentence) and chinese == sentence)
    ]
    assert english == []


def test_the_compiled_catalogue_holds_what_the_written_one_does() -> None:
    written = {text: each for text, each in catalogue.translations().items() if each}
    assert catalogue.compiled() == written, "run: tests.catalogue compile"


def test_no_sentence_is_put_together_before_it_can_be_translated() -> None:
    found = {
        name: texts
        for name, tree in modules().items()
        if (texts := catalogue.untranslatable_in(tree))
    }
    assert found == UNTRANSLATABLE


def test_sentences_are_collected_wherever_they_stand() -> None:
    source = """
import logging
log = logging.getLogger(__name__)
class Broken(QueueFull): ...
def f(x):
    log.info("one" " and a half", {"x": x})
    log.log(logging.INFO, "two %(x)s", {"x": x})
    raise QueueFull("three {x}", x=x)
    return errors.Unroutable(("four"), x=x)
    Broken("five")
    log.debug(x)
    other.info("not ours")
    ValueError("not ours either")
"""
    found = catalogue.sentences_in(ast.parse(source))
    assert found == {"one and a half", "two %(x)s", "three {x}", "four", "five"}


def test_a_module_of_the_package_is_there_without_an_import_of_its_own() -> None:
    code = "import rmqarq; rmqarq.errors.Retry, rmqarq.worker.Worker; rmqarq.nowhere"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert done.stderr.splitlines()[-1].startswith("AttributeError: module 'rmqarq'")
    assert "'nowhere'" in done.stderr
