"""The log of a worker: its language, its shape, and the job a line belongs to."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rmqarq import App, ConfigurationError, Context, Message, State
from rmqarq.logs import (
    JsonFormatter,
    Numbered,
    TextFormatter,
    catalogue,
    chosen_language,
    current_job,
    held,
    process_number,
    render,
    set_up,
    tell,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SENTENCE = "the queues can't be counted: %(why)s"


def record(message: Any, *args: Any, name: str = "rmqarq.worker") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "file.py", 1, message, args, None)


def plain(language: str = "en") -> TextFormatter:
    return TextFormatter(language, colour=False)


def test_a_line_holds_time_level_and_sentence() -> None:
    line = plain().format(record(SENTENCE, {"why": "lost"}))
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} WARNING the queues can't be counted: lost",
        line.replace("  ", " "),
    )


def test_a_line_of_a_job_names_task_and_id() -> None:
    ctx = Context(Message(task="add", id="j-1"), State(), "q")
    token = current_job.set(ctx)
    try:
        assert "[add j-1] hello" in plain().format(record("hello", name="myapp"))
    finally:
        current_job.reset(token)
    assert "[add" not in plain().format(record("hello", name="myapp"))


def test_a_line_of_one_of_several_processes_begins_with_its_number() -> None:
    marked = record("hello", name="myapp")
    assert Numbered(2).filter(marked)
    assert vars(marked)["worker"] == 2
    assert plain().format(marked).endswith(" [2] hello")
    alone = record("hello", name="myapp")
    assert Numbered(None).filter(alone)
    assert "[" not in plain().format(alone)


def test_our_sentences_are_chinese_when_chinese_is_chosen() -> None:
    english = plain("en").format(record(SENTENCE, {"why": "lost"}))
    chinese = plain("zh").format(record(SENTENCE, {"why": "lost"}))
    assert "can't be counted" in english
    assert "can't be counted" not in chinese
    assert chinese.endswith("lost")
    assert re.search("[\u4e00-\u9fff]", chinese)


def test_sentences_of_others_are_never_translated() -> None:
    line = plain("zh").format(record(SENTENCE, {"why": "lost"}, name="myapp"))
    assert line.endswith("the queues can't be counted: lost")


@pytest.mark.parametrize("message", ["100 %", "%s", "50%% off"])
def test_a_message_without_arguments_is_not_formatted(message: str) -> None:
    assert plain().format(record(message)).endswith(message)


def test_a_message_that_is_no_text_is_shown_all_the_same() -> None:
    assert plain().format(record(ValueError("oops"))).endswith("oops")


def test_an_exception_is_shown_with_its_traceback() -> None:
    failed = record("failed")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        failed.exc_info = sys.exc_info()
    lines = plain().format(failed).splitlines()
    assert lines[0].endswith("failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_warnings_are_coloured_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert TextFormatter("en", colour=True).format(record("x")).startswith("\x1b[33m")
    assert "\x1b" not in plain().format(record("x"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in TextFormatter("en").format(record("x"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in TextFormatter("en").format(record("x"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "ZH_tw"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN", "LC_MESSAGES": "zh_CN", "LC_ALL": "C"}, "en"),
        ({"LANG": "zh_CN", "LC_ALL": ""}, "zh"),
    ],
)
def test_the_language_follows_the_locale(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert chosen_language("auto") == expected
    assert chosen_language("zh") == "zh"
    assert chosen_language("en") == "en"


def test_an_error_is_rendered_in_the_language_of_the_reader() -> None:
    with pytest.raises(ConfigurationError) as caught:
        App("redis://h")
    error = caught.value
    assert render(error, "en") == str(error)
    chinese = render(error, "zh")
    assert chinese != str(error)
    assert "redis://h" in chinese
    assert str(error).startswith("the broker URL")  # whatever language it was shown in


def test_an_error_of_others_is_rendered_as_it_is() -> None:
    assert render(ValueError("oops"), "zh") == "oops"


def test_an_unknown_sentence_falls_back_to_english() -> None:
    assert catalogue("zh").gettext("never heard of") == "never heard of"
    assert render(ConfigurationError("no {x}", x=1), "zh") == "no 1"


@contextmanager
def loggers_of_a_new_program() -> Iterator[logging.Logger]:
    """Take all handlers off, pytest's too, and put everything back at the end."""
    loggers = [logging.getLogger(name) for name in ("", "rmqarq", "aiormq")]
    before = [(each, each.level, each.handlers[:]) for each in loggers]
    loggers[0].handlers.clear()
    try:
        yield loggers[0]
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers


def test_set_up_sends_the_log_to_standard_error() -> None:
    with loggers_of_a_new_program() as root:
        set_up("DEBUG", "en")
        (handler,) = root.handlers
        assert isinstance(handler, logging.StreamHandler)
        assert isinstance(handler.formatter, TextFormatter)
        assert handler.stream is sys.stderr
        assert logging.getLogger("rmqarq").isEnabledFor(logging.DEBUG)


def test_set_up_leaves_the_handlers_of_the_program_alone() -> None:
    with loggers_of_a_new_program() as root:
        own = logging.NullHandler()
        root.addHandler(own)
        set_up("DEBUG", "en")
        assert root.handlers == [own]


def test_our_loggers_speak_though_the_program_has_silenced_those_it_does_not_name() -> (
    None
):
    with loggers_of_a_new_program():
        ours = logging.getLogger("rmqarq.made_before")
        try:
            logging.config.dictConfig({"version": 1})  # disable_existing_loggers
            assert ours.disabled
            set_up("INFO", "en")
            assert not ours.disabled
        finally:
            for each in logging.root.manager.loggerDict.values():
                if isinstance(each, logging.Logger):
                    each.disabled = False


def test_lines_that_the_program_shows_itself_are_not_shown_twice() -> None:
    with loggers_of_a_new_program() as root:
        logging.getLogger("rmqarq").addHandler(logging.NullHandler())
        set_up("INFO", "en")
        (handler,) = root.handlers
        assert not handler.filter(record("hello", name="rmqarq.worker"))
        assert handler.filter(record("hello", name="myapp"))


def test_the_number_of_the_process_is_known_where_lines_are_marked() -> None:
    with loggers_of_a_new_program() as root:
        set_up("INFO", "en", worker=3)
        assert process_number() == 3
        root.handlers[:] = [logging.NullHandler()]
        set_up("INFO", "en", worker=3)
        assert process_number() is None


def test_the_last_error_is_logged_where_lines_are_json_alone() -> None:
    with loggers_of_a_new_program() as root:
        error, shown = ConfigurationError("no {x}", x=1), Kept()
        set_up("INFO", "en")
        assert not tell(error)
        root.handlers[:] = [shown]
        shown.setFormatter(JsonFormatter("en"))
        assert tell(error)
        assert shown.sentences == ["no 1"]


def test_no_password_of_a_url_is_shown() -> None:
    said = "no answer from amqp://ada:hunter2@rabbit:5672/"
    line = plain().format(record(said, name="myapp"))
    assert line.endswith("no answer from amqp://ada:***@rabbit:5672/")


def test_set_up_hides_the_frames_that_aiormq_logs() -> None:
    with loggers_of_a_new_program():
        set_up("DEBUG", "en")
        assert not logging.getLogger("aiormq.connection").isEnabledFor(logging.INFO)


def test_what_a_module_says_of_our_logger_stands_after_it_was_held() -> None:
    with loggers_of_a_new_program() as root:
        ours, shown = logging.getLogger("rmqarq"), Kept()
        with held("en"):
            logging.getLogger("rmqarq.early").warning("before")
            ours.propagate = False
            root.addHandler(shown)
            ours.addHandler(shown)
            logging.getLogger("rmqarq.early").warning("after")
        try:
            assert shown.sentences == ["after", "before"]
        finally:
            ours.propagate = True


class Kept(logging.Handler):
    """Keeps sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())
