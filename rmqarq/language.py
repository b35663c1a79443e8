"""The language of the reader: which one it is, and sentences put into it."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rmqarq.errors import Phrase, RmqarqError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from gettext import NullTranslations

LOCALE = Path(__file__).parent / "locale"
DOMAIN = "rmqarq"
LANGUAGES = ("en", "zh")
_CHINESE = re.compile(r"zh(?![a-z])", re.IGNORECASE)  # zh, zh_TW, zh-Hans, zh.UTF-8


def chosen_language(language: str) -> str:
    """Give `en` or `zh`; `auto` goes by the locale in the environment."""
    if language != "auto":
        return language
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if _CHINESE.match(value) else "en"
    return "en"


@cache
def catalogue(language: str) -> NullTranslations:
    """Load the sentences of a language; English stands in the code itself."""
    import gettext  # here: English needs none of it

    if language != "zh":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALE, languages=["zh_CN"], fallback=True)


def translated(sentence: str, language: str) -> str:
    """Give a sentence or word in a language; one that is not known stays English."""
    if language != "zh" or not sentence:  # gettext gives its header for no sentence
        return sentence
    return catalogue(language).gettext(sentence)


def render(error: BaseException, language: str) -> str:
    """Give the sentence of an error in the user's language."""
    if not isinstance(error, RmqarqError):
        return str(error)
    return _filled(error.template, error.params, language)


def rendered(value: object, language: str) -> object:
    """Translate what fills a gap, if it is an error or a phrase of ours."""
    if isinstance(value, RmqarqError):
        return render(value, language)
    if isinstance(value, Phrase):
        return _filled(value.template, value.params, language)
    return value


def _filled(template: str, params: Mapping[str, object], language: str) -> str:
    sentence = translated(template, language)
    if not params:
        return sentence
    return sentence.format(**{k: rendered(v, language) for k, v in params.items()})
