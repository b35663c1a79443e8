"""Finds the App that a command names as MODULE:APP."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from rmqarq.app import App
from rmqarq.errors import AppNotFound, ConfigurationError, Phrase, RmqarqError

if TYPE_CHECKING:
    from types import ModuleType


isolated = False
"""Whether this is the isolated process of a worker: none may be started in it."""

_importing: ContextVar[str | None] = ContextVar("rmqarq_importing", default=None)


def load(path: str) -> App[Any]:
    """Import the module and give the App in it.

    Args:
        path: `package.module:attribute`; the attribute may be left out when the
            module holds one App. Modules in the current directory are found.

    Raises:
        AppNotFound: There is none; the sentence says what was looked for and found.
    """
    name, _, attribute = path.partition(":")
    if name.endswith(".py") or "/" in name:
        guess = name.removesuffix(".py").strip("./").replace("/", ".")
        raise AppNotFound(
            "{path} is a file; name the module: {guess}",
            path=repr(path),
            guess=f"{guess}:{attribute or 'app'}",
        )
    module = _import(name, path)
    if not attribute:
        return _only_app(module)
    found = _attribute(module, attribute)
    if _is_app(found):
        return found
    if found is None:
        raise AppNotFound(
            "there is no {path}; {apps}", path=repr(path), apps=_apps_in(module)
        )
    raise AppNotFound(
        "{path} is a {what}, not an App; {apps}",
        path=repr(path),
        what=type(found).__name__,
        apps=_apps_in(module),
    )


def refuse_while_importing() -> None:
    """Let nobody start a worker in a module that is just imported for its App.

    Raises:
        ConfigurationError: A module does so.
    """
    module = _importing.get()
    if module is not None or isolated:
        raise ConfigurationError(
            "the module {module} starts a worker while its App is looked for; start it"
            " under if __name__ == '__main__'",
            module=Phrase("of the App") if module is None else repr(module),
        )


def path_of(app: App[Any]) -> str | None:
    """Find out where a new process could load an App from, as MODULE:APP.

    Returns:
        `None` when no module that can be imported holds it, e.g. because a function
        has made it.
    """
    found: dict[str, str] = {}
    for name, module in tuple(sys.modules.items()):
        for attribute, value in tuple(_contents(module).items()):
            if value is app and (importable := _importable(name, module)):
                found.setdefault(importable, f"{importable}:{attribute}")
    homes = [each.fn.__module__ for each in app.registry]
    best = next((home for home in homes if home in found), next(iter(found), None))
    return found[best] if best is not None else None


def _contents(module: object) -> dict[str, object]:
    """Give what a module holds, without making a lazy one load."""
    try:
        contents: dict[str, object] = object.__getattribute__(module, "__dict__")
    except AttributeError:  # anything may stand in sys.modules
        return {}
    return contents


def _importable(name: str, module: ModuleType) -> str | None:
    """Give the name under which a new process can import a module."""
    if name != "__main__":
        return name
    if module.__spec__ is not None:  # python -m, or python DIRECTORY
        return module.__spec__.name if module.__spec__.name != name else None
    file = getattr(module, "__file__", None)
    stem = Path(file or "").stem
    try:
        spec = importlib.util.find_spec(stem) if stem.isidentifier() else None
    except (ImportError, ValueError):
        return None
    same = spec is not None and spec.origin and file and Path(spec.origin) == Path(file)
    return stem if same else None


def _import(name: str, path: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    token = _importing.set(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise _failed(name, error) from error  # it is there, what it needs is not
        raise AppNotFound(
            "there is no module {name} for {path}, neither in {here} nor installed",
            name=repr(missing),
            path=repr(path),
            here=here,
        ) from None
    except RmqarqError:
        raise  # it says itself what is wrong
    except Exception as error:
        if not name:
            raise AppNotFound(
                "{path} names no module; write MODULE:APP", path=repr(path)
            ) from None
        raise _failed(name, error) from error
    finally:
        _importing.reset(token)


def _failed(name: str, error: Exception) -> AppNotFound:
    return AppNotFound(
        "the module {name} can't be imported: {problem}",
        name=repr(name),
        problem=f"{type(error).__name__}: {error}",
    )


def _attribute(module: ModuleType, attribute: str) -> object:
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


def _only_app(module: ModuleType) -> App[Any]:
    apps = list(_apps(module).values())
    if len({id(each) for each in apps}) == 1:
        return apps[0]
    raise AppNotFound(
        "say which App of {module} is meant: {apps}",
        module=repr(module.__name__),
        apps=_apps_in(module),
    )


def _apps(module: ModuleType) -> dict[str, App[Any]]:
    return {name: each for name, each in vars(module).items() if _is_app(each)}


def _is_app(value: object) -> TypeGuard[App[Any]]:
    return isinstance(value, App)


def _apps_in(module: ModuleType) -> Phrase:
    names = _apps(module)
    if not names:
        name = repr(module.__name__)
        return Phrase("the module {name} holds no App", name=name)
    written = ", ".join(f"{module.__name__}:{name}" for name in names)
    return Phrase("the module holds {apps}", apps=written)
