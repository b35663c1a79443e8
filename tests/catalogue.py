"""The Chinese catalogue: collected from the code, translated by hand, compiled.

    python -m tests.catalogue update     adds new sentences, drops those not used
    python -m tests.catalogue compile    writes the .mo that the package reads

Translate between the two: an entry without translation fails a test.
"""

from __future__ import annotations

import ast
import gettext
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_type_hints

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from typer.main import get_command

import rmqarq
from rmqarq import errors, findings, outcome
from rmqarq.cli import translated
from rmqarq.cli.main import program
from rmqarq.worker import admission, ending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = Path(rmqarq.__file__).parent
PO = PACKAGE / "locale" / "zh_CN" / "LC_MESSAGES" / "rmqarq.po"
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
SENTENCES = {
    *("say", "aside", "filled", "confirm", "fact"),
    *("BadParameter", "Phrase", "sentence"),
}
"""What takes a sentence, or a word, as its first argument."""
PLACEHOLDER = re.compile(r"%\(\w+\)[-#0-9. +]*[a-z]|%%|\{\w*(?::[^}]*)?\}")
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.RmqarqError)
}


def sentences_by_file() -> dict[str, set[str]]:
    """Collect the sentences of every file of the package."""
    found = {
        path.relative_to(PACKAGE).as_posix(): sentences_in(ast.parse(path.read_bytes()))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    found["outcome.py"] |= {*get_args(outcome.Reason)}
    found["worker/ending.py"] |= {*get_args(ending.Why)}
    found["worker/admission.py"] |= {
        *get_args(get_type_hints(admission.Postponed)["why"])
    }
    found["findings.py"] |= {*get_args(findings.Level)}
    found["cli/translated.py"] |= {*translated.PARSER_WORDS, *translated.COMPLAINTS}
    for file, text in help_texts():
        found[file].add(text)
    return {file: {t for t in texts if _has_words(t)} for file, texts in found.items()}


def help_texts() -> Iterator[tuple[str, str]]:
    """Collect what all commands and their flags say of themselves, with their files."""
    for command in translated.each_command(get_command(program())):
        place = getattr(command.callback, "__module__", "rmqarq.cli.main")
        file = place.removeprefix("rmqarq.").replace(".", "/") + ".py"
        for text in translated.help_texts(command):
            yield file, text


def sentences() -> set[str]:
    """Collect every sentence and word that a user may read."""
    return set().union(*sentences_by_file().values())


def sentences_in(tree: ast.Module) -> set[str]:
    """Collect the literal sentences of logs, of our errors, and of commands."""
    kinds = _error_names(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {each for call in calls for each in _sentences_of(call, kinds)}
    for call in calls:
        found |= {*_literals(_argument_of(call, {"translated"}))}
        found |= {*_headings(tree, call)}
    return found


def _error_names(tree: ast.Module) -> set[str]:
    """Name the errors in sight: those of the tree, aliases and subclasses included."""
    kinds = set(ERRORS)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            renamed = [each for each in node.names if each.name in kinds]
            kinds |= {each.asname for each in renamed if each.asname}
        elif isinstance(node, ast.ClassDef):
            parents = {ast.unparse(each).rpartition(".")[2] for each in node.bases}
            kinds |= {node.name} if parents & kinds else set()
    return kinds


def _sentences_of(call: ast.Call, kinds: set[str]) -> Iterator[str]:
    sentence = _sentence_of(call, kinds)
    if sentence is not None:
        yield from _literals(sentence)


def _sentence_of(call: ast.Call, kinds: set[str]) -> ast.expr | None:
    """Give the argument that holds the sentence of a log call, an error, an output."""
    owner, _, name = ast.unparse(call.func).rpartition(".")
    if owner == "log" and name in LOG_METHODS:
        at = 1 if name == "log" else 0
    elif name in kinds or name in SENTENCES:
        at = 0
    else:
        return None
    return call.args[at] if len(call.args) > at else None


def _argument_of(call: ast.Call, names: set[str]) -> ast.expr | None:
    """Give the first argument of a call of one of these, whatever they belong to."""
    name = ast.unparse(call.func).rpartition(".")[2]
    return call.args[0] if name in names and call.args else None


def _headings_of(call: ast.Call) -> ast.expr | None:
    is_table = ast.unparse(call.func) == "output.table"
    return call.args[0] if is_table and call.args else None


def _headings(tree: ast.Module, call: ast.Call) -> Iterator[str]:
    """Give the headings of a table, those that stand in a variable, too."""
    given = _headings_of(call)
    if isinstance(given, ast.Name):
        given = _assigned(tree, given.id)
    if isinstance(given, ast.Tuple | ast.List):
        for each in given.elts:
            yield from _literals(each)


def _assigned(tree: ast.Module, name: str) -> ast.expr | None:
    """Give the tuple that a variable of this name is set to, anywhere in a file."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Tuple)
            and ast.unparse(node.targets[0]) == name
        ):
            return node.value
    return None


def untranslatable_in(tree: ast.Module) -> set[str]:
    """Collect the sentences that are put together before anybody can translate them."""
    kinds = _error_names(tree)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    sentences = [_sentence_of(call, kinds) for call in calls]
    found = {
        ast.unparse(each)
        for each in sentences
        if each is not None and not _is_literal(each)
    }
    return found | {
        ast.unparse(headings)
        for call in calls
        if (headings := _headings_of(call)) and not any(_headings(tree, call))
    }


def _literals(node: ast.expr | None) -> Iterator[str]:
    """Give a text, or both texts of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if _has_words(node.value):
            yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)


def _has_words(text: str) -> bool:
    """Tell whether there is something to translate beside what is filled in."""
    return bool(re.search(r"[A-Za-z]{2}", without_placeholders(text)))


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_literal(node.body) and _is_literal(node.orelse)
    if isinstance(node, ast.Call):  # one that translates: its own sentence counts
        return ast.unparse(node.func) in ("output.filled", "output.translated")
    return isinstance(node, ast.Constant)


def placeholders(text: str) -> list[str]:
    """Give what is filled in, in a fixed order: languages order words differently."""
    return sorted(PLACEHOLDER.findall(text))


def without_placeholders(text: str) -> str:
    """Give the words alone."""
    return PLACEHOLDER.sub("", text)


class Chinese(Catalog):
    """A catalogue whose header changes with nothing: neither dates nor versions."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        """The few lines that gettext needs."""
        return [
            ("Project-Id-Version", "rmqarq"),
            ("Language", "zh_CN"),
            ("Plural-Forms", "nplurals=1; plural=0;"),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
        ]


def _catalogue(entries: Iterable[tuple[str, str, str]]) -> Catalog:
    """Make a catalogue of sentences, translations and files."""
    made = Chinese(locale="zh_CN", fuzzy=False)
    made.header_comment = "# The Chinese sentences of rmqarq."
    for text, chinese, file in entries:
        kind = "python-format" if "%(" in text else "python-brace-format"
        flags = [kind] if placeholders(text) else []
        made.add(text, chinese, locations=[(file, 0)] if file else (), flags=flags)
    return made


def translations() -> dict[str, str]:
    """Read the written catalogue."""
    with PO.open("rb") as file:
        found = read_po(file, locale="zh_CN", abort_invalid=True)
    return {str(each.id): str(each.string) for each in found if each.id}


def compiled() -> dict[str, str]:
    """Read the compiled catalogue as the package does."""
    with PO.with_suffix(".mo").open("rb") as file:
        found = gettext.GNUTranslations(file)
    entries: dict[str, str] = found._catalog  # type: ignore[attr-defined]
    return {text: chinese for text, chinese in entries.items() if text}


def update() -> None:
    """Write the sentences of the code into the catalogue; translations stay."""
    known = translations() if PO.exists() else {}
    files: dict[str, str] = {}
    for file, found in sentences_by_file().items():
        for text in sorted(found):
            files.setdefault(text, file)
    entries = [(text, known.get(text, ""), file) for text, file in files.items()]
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as output:
        write_po(output, _catalogue(entries), width=88, include_lineno=False)
    new = [text for text, chinese, _ in entries if not chinese]
    gone = known.keys() - files.keys()
    print(f"{len(files)} sentences, {len(gone)} dropped, {len(new)} to translate")
    for text in new:
        print(f"  {text}")


def compile_catalogue() -> None:
    """Write the compiled catalogue beside the written one."""
    entries = [(text, chinese, "") for text, chinese in translations().items()]
    with PO.with_suffix(".mo").open("wb") as output:
        write_mo(output, _catalogue(entries))
    print(f"{PO.with_suffix('.mo').name}: {len(entries)} sentences")


def main() -> None:
    """Run one of the two commands."""
    commands = {"update": update, "compile": compile_catalogue}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: python -m tests.catalogue {' | '.join(commands)}")
    commands[sys.argv[1]]()


if __name__ == "__main__":
    main()
