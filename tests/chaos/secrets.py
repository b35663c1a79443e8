"""What must never stand in any output: a marked password, a marked body.

Give the user `PASSWORD`, put `BODY` into arguments or bodies, and `look` through all
that was written. An exception of a task may quote its arguments by the task's own
doing: choose tasks that do not.
"""

from __future__ import annotations

import base64
import re
import traceback
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "marked"
PASSWORD = "S3CR3T-p4ss"
BODY = "B0DY-m4rker"


def found_in(text: str) -> list[str]:
    """Give the lines in which a marker stands, plain or encoded."""
    return [line for line in text.splitlines() if _FORMS.search(line)]


def look(*texts: str) -> None:
    """Fail when a marker stands in one of the texts; name the lines."""
    lines = [line for text in texts for line in found_in(text)]
    assert not lines, "a secret was written:\n" + "\n".join(lines)


def written(error: BaseException) -> str:
    """Give all that an error may print: its texts and tracebacks, and its values."""
    parts = traceback.format_exception(error)
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        parts += [repr(cause), repr(cause.args), repr(vars(cause))]
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or context
    return "".join(f"{part}\n" for part in parts)


def url_with_password(url: str) -> str:
    """Put the marked user into a URL instead of guest."""
    assert "guest:guest@" in url
    return url.replace("guest:guest@", f"{USER}:{PASSWORD}@")


def _forms(marker: str) -> Iterator[str]:
    raw = marker.encode()
    yield marker
    yield quote(marker, safe="")
    yield raw.hex()
    yield base64.b64encode(b"\0" * 3 + raw).decode()[4:].rstrip("=")[:-1]
    # a URL or bodies may be wrapped or cut, so a good part is as bad as the whole
    yield marker[:8]


_FORMS = re.compile(
    "|".join(re.escape(form) for each in (PASSWORD, BODY) for form in _forms(each))
)
