"""A new Python that serves this process: how it is started, and how it ended."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from rmqarq.errors import Phrase

# -P, and the paths last: no file here may pass for a module of the standard library;
# and this very package, though the paths may lead to another one
PACKAGE = Path(__file__).parents[1] / "__init__.py"
PROGRAM = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
sys.path += sys.argv[4:]
spec = spec_from_file_location("rmqarq", sys.argv[3])
sys.modules["rmqarq"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from rmqarq.worker.{module} import main
main()
"""


def command(module: str, number: int) -> list[str]:
    """Make the command line of a process that talks through a file descriptor.

    Its program sees this number, our process id, the package, and our import paths.

    Args:
        module: A file in `worker/` with a function `main`.
        number: The file descriptor.
    """
    paths = [os.fsdecode(each) for each in sys.path]
    words = (str(number), str(os.getpid()), str(PACKAGE), *paths)
    return [sys.executable, "-P", "-c", PROGRAM.format(module=module), *words]


def death(code: int) -> str:
    """Say how a process ended.

    Args:
        code: Its exit code; the negative number of a signal that killed it.
    """
    if code >= 0:
        return Phrase("ended with exit code {code}", code=code)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return Phrase("killed by {signal}", signal=name)
