"""Every setting in one frozen value; each can be set as `RMQARQ_<NAME>`, too."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Self,
    TypeAlias,
    TypedDict,
    Unpack,
    cast,
    get_args,
    get_origin,
)

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from rmqarq.errors import ConfigurationError, Phrase
from rmqarq.url import masked, parse_urls
from rmqarq.when import Duration, plain_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

log = logging.getLogger(__name__)

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
LATEST = 253402300799  # the last second of the year 9999
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=LATEST)]
MorePositive: TypeAlias = Annotated[float, Meta(gt=0, le=LATEST)]
Limit: TypeAlias = MorePositive | None
Count: TypeAlias = Annotated[int, Meta(ge=0)]
WholeSeconds: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_DURATIONS: tuple[Any, ...] = (Seconds, MorePositive, Limit, WholeSeconds)
RESERVED = ("ENV", "DEV_URL", "TEST_", "CHAOS_")
DEV_URL = "RMQARQ_DEV_URL"
"""What `rmqarq dev` sets, for whoever it starts: it beats the URL in their code."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of an App and its workers.

    Times are seconds; each may be given as a timedelta. `App(Settings(...))` takes it
    whole; `App(queue=...)` fills what is not given from the environment. On the command
    line a flag beats both.

    Args:
        url: One AMQP URL, several separated by commas, or a tuple of them.
        queue: The queue of tasks that name none.
        dead_letter_queue: Where dead jobs of `queue` go; `<queue>_dlq` if not given.
        prefix: The first word of the names of our own exchanges and queues.
        queue_type: `quorum` (replicated, the default) or `classic`.
        max_priority: Declares classic queues with `x-max-priority`.
        declare: `active` creates what is missing; `passive` only checks.
        delays: `ladder` waits in queues, `plugin` in the delayed-message plugin;
            `auto` takes the plugin where the broker has it.
        serializer: `json` or `msgpack`, for what this App sends.
        processes: Worker processes that `rmqarq run` starts.
        concurrency: Jobs a worker runs at the same time, per process.
        prefetch: Unfinished messages the broker may send per queue;
            concurrency + 10 % if not given.
        max_jobs: A worker process stops after this many runs; one of several is
            then replaced by a new one.
        job_timeout: Past it a run is cancelled and counts as failed; `None`: never.
        max_retries: Further attempts after a failed run, for tasks that set none.
        retry_backoff: The first wait between attempts; doubles up to an hour.
        unknown_task_wait: How long a message waits for a worker that knows its task.
        max_body: The largest body sent or read, in bytes, unpacked.
        validate: Check at enqueue that arguments come back as their annotated types.
        compression: Pack bodies above `compression_threshold` with gzip.
        compression_threshold: In bytes.
        publish_deadline: How long an enqueue may take, reconnecting included.
        heartbeat: AMQP heartbeat, whole seconds; a dead link shows after three.
        connect_timeout: For one attempt to reach one broker.
        tls_ca: File with the certificate authorities that are trusted.
        tls_cert: File with our own certificate, for mutual TLS.
        tls_key: File with its key.
        tls_verify: Check the broker's certificate and host name.
        shutdown_grace: How long a stopping worker waits for running jobs.
        cancel_grace: How long a cancelled job may take to end before it is left behind.
        burst: Stop when the queues are empty.
        burst_timeout: The longest run in burst mode; `None`: no limit.
        burst_check_interval: Between two looks at the queues.
        burst_wait: Wait for running jobs before a burst ends.
        wait_delayed: In burst mode, wait for every delayed job of the prefix, too.
        fail_on_dead: In burst mode, exit with 5 when jobs were dead-lettered.
        health_port: Where a worker serves /livez, /readyz and /metrics; none if not
            given.
        health_host: The address that it serves them on; `0.0.0.0` for all.
        health_check_interval: Between two lines of statistics; 0 writes none.
        log_level: Of the worker's log.
        log_format: `text`, or `json`: one object a line.
        language: Of the worker's log: `en`, `zh`, or `auto` by the locale.

    Raises:
        ConfigurationError: A value of the wrong type or out of range.
    """

    url: str | tuple[str, ...] = "amqp://guest:guest@localhost:5672/"
    queue: str = "rmqarq"
    dead_letter_queue: str | None = None
    prefix: str = "rmqarq"
    queue_type: Literal["quorum", "classic"] = "quorum"
    max_priority: Annotated[int, Meta(ge=1, le=255)] | None = None
    declare: Literal["active", "passive"] = "active"
    delays: Literal["auto", "ladder", "plugin"] = "auto"
    serializer: Literal["json", "msgpack"] = "json"
    processes: Positive = 1
    concurrency: Positive = 100
    prefetch: Annotated[int, Meta(ge=1, le=65535)] | None = None
    max_jobs: Positive | None = None
    job_timeout: Limit = 300.0
    max_retries: Count = 3
    retry_backoff: Seconds = 5.0
    unknown_task_wait: Seconds = 600.0
    max_body: Positive = 1024 * 1024
    validate: bool = True
    compression: bool = False
    compression_threshold: Count = 1024
    publish_deadline: MorePositive = 30.0
    heartbeat: WholeSeconds = 10
    connect_timeout: MorePositive = 5.0
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True
    shutdown_grace: Seconds = 25.0
    cancel_grace: Seconds = 5.0
    burst: bool = False
    burst_timeout: Limit = 300.0
    burst_check_interval: MorePositive = 1.0
    burst_wait: bool = True
    wait_delayed: bool = False
    fail_on_dead: bool = False
    health_port: Port | None = None
    health_host: str = "127.0.0.1"
    health_check_interval: Seconds = 60.0
    log_level: LogLevel = "INFO"
    log_format: Literal["text", "json"] = "text"
    language: Literal["auto", "en", "zh"] = "auto"

    if TYPE_CHECKING:  # it takes more than its fields hold

        def __init__(
            self,
            *,
            url: str | tuple[str, ...] = "",
            **fields: Unpack[SettingsFields],
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, kind in _field_types():
            value = getattr(self, name)
            if isinstance(value, timedelta) and kind in _DURATIONS:
                value = _in_seconds(value, kind)
                force_setattr(self, name, value)
            try:
                msgspec.convert(value, type=kind)
            except msgspec.ValidationError as error:
                raise ConfigurationError(
                    "the setting {name} can't be {value}: {problem}",
                    name=name,
                    value=repr(_shown(name, value)),
                    problem=_problem(kind, error),
                ) from None

    @classmethod
    def from_env(cls, prefix: str = "RMQARQ_", /, **overrides: Any) -> Self:
        """Read the settings from the environment.

        Args:
            prefix: What the names of the variables start with.
            **overrides: Values that beat the environment.

        Raises:
            ConfigurationError: A variable that can't be read as its setting.
        """
        return cls(**{**_from_environment(prefix, os.environ), **overrides})

    @property
    def tls_files(self) -> list[str]:
        """The names of the files for TLS that are given."""
        names = ("tls_ca", "tls_cert", "tls_key")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def prefetch_count(self) -> int:
        """The prefetch in force: as given, else concurrency + 10 %."""
        return self.prefetch or min(65535, self.concurrency + self.concurrency // 10)

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self._changed())
        return f"Settings({changed})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self._changed())

    def _changed(self) -> Iterator[tuple[str, object]]:
        for name, default in zip(
            self.__struct_fields__, self.__struct_defaults__, strict=True
        ):
            value = getattr(self, name)
            if value != default:
                yield name, _shown(name, value)


class SettingsFields(TypedDict, total=False):
    """The same fields as keywords of `App(...)`; times may be timedeltas, too."""

    queue: str
    dead_letter_queue: str | None
    prefix: str
    queue_type: Literal["quorum", "classic"]
    max_priority: int | None
    declare: Literal["active", "passive"]
    delays: Literal["auto", "ladder", "plugin"]
    serializer: Literal["json", "msgpack"]
    processes: int
    concurrency: int
    prefetch: int | None
    max_jobs: int | None
    job_timeout: Duration | None
    max_retries: int
    retry_backoff: Duration
    unknown_task_wait: Duration
    max_body: int
    validate: bool
    compression: bool
    compression_threshold: int
    publish_deadline: Duration
    heartbeat: int | timedelta
    connect_timeout: Duration
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    tls_verify: bool
    shutdown_grace: Duration
    cancel_grace: Duration
    burst: bool
    burst_timeout: Duration | None
    burst_check_interval: Duration
    burst_wait: bool
    wait_delayed: bool
    fail_on_dead: bool
    health_port: int | None
    health_host: str
    health_check_interval: Duration
    log_level: LogLevel
    log_format: Literal["text", "json"]
    language: Literal["auto", "en", "zh"]


def chosen_settings(
    url: str | Sequence[str] | Settings | None, fields: SettingsFields
) -> Settings:
    """Give the settings of `App(url, **fields)`: code first, then the environment.

    The URL in `RMQARQ_DEV_URL` beats both.

    Raises:
        TypeError: A field that does not exist.
        ConfigurationError: A value that can't be used, fields beside a Settings, or a
            `RMQARQ_DEV_URL` that leads to another machine.
    """
    return beaten_by_dev_url(_settings(url, fields))


def beaten_by_dev_url(settings: Settings) -> Settings:
    """Give settings with the URL in `RMQARQ_DEV_URL`, if there is one.

    Raises:
        ConfigurationError: It leads to another machine, or can't be read.
    """
    dev_url = os.environ.get(DEV_URL)
    if not dev_url:
        return settings
    if not all(each.local for each in parse_urls(dev_url)):
        raise ConfigurationError(
            "{variable} beats every URL in code, so it may only name a broker on this"
            " machine, not {url}; RMQARQ_URL may name any",
            variable=DEV_URL,
            url=repr(masked(dev_url)),
        )
    return msgspec.structs.replace(settings, url=dev_url)


def _settings(
    url: str | Sequence[str] | Settings | None, fields: SettingsFields
) -> Settings:
    given: dict[str, Any] = {**fields}
    if isinstance(url, Settings):
        if given:
            raise ConfigurationError(
                "App takes either a Settings or single settings, not both: {names}",
                names=", ".join(given),
            )
        return url
    if url is not None:
        given["url"] = url if isinstance(url, str) else tuple(url)
    if isinstance(level := given.get("log_level"), str):
        given["log_level"] = level.upper()
    unknown = given.keys() - set(Settings.__struct_fields__)
    if unknown:
        msg = f"App has no setting {', '.join(sorted(unknown))}"
        raise TypeError(msg)
    return Settings.from_env(**given)


def _in_seconds(given: timedelta, kind: Any) -> float:
    """Give a timedelta as the number that a setting of this type holds."""
    seconds: float = plain_seconds(given)
    return int(seconds) if kind == WholeSeconds and seconds.is_integer() else seconds


@cache
def _field_types() -> Sequence[tuple[str, Any]]:
    return [(each.name, each.type) for each in msgspec.structs.fields(Settings)]


def _from_environment(prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Take the settings out of `environ`; an empty variable counts as not set."""
    found: dict[str, Any] = {}
    known = dict(_field_types())
    for variable, text in environ.items():
        name = variable.removeprefix(prefix)
        if name == variable or not text:
            continue
        field = name.lower()
        if field in known:
            found[field] = _read(variable, field, text, known[field])
        elif not name.startswith(RESERVED):
            _warn_unknown(prefix, variable, known)
    return found


def _read(variable: str, field: str, text: str, kind: Any) -> Any:
    if field == "log_level":
        text = text.upper()
    if kind is bool:
        text = _WORDS.get(text.lower(), text)
    try:
        return msgspec.convert(text, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            "the environment variable {variable} can't be {value}: {problem}",
            variable=variable,
            value=repr(_shown(field, text)),
            problem=_problem(kind, error),
        ) from None


def _problem(kind: Any, error: msgspec.ValidationError) -> str:
    """Say what a value should have been."""
    if get_origin(kind) is Literal:
        known = ", ".join(map(repr, get_args(kind)))
        return Phrase("Expected one of {known}", known=known)
    return str(error)


def _warn_unknown(prefix: str, variable: str, known: Mapping[str, Any]) -> None:
    import difflib  # here: names are seldom wrong

    names = [prefix + name.upper() for name in known]
    nearest = difflib.get_close_matches(variable, names, n=1, cutoff=0.85)
    if nearest:
        log.warning(
            "the environment variable %(variable)s is not a setting;"
            " did you mean %(nearest)s?",
            {"variable": variable, "nearest": nearest[0]},
        )
    else:
        log.warning(
            "the environment variable %(variable)s is not a setting and is ignored",
            {"variable": variable},
        )


def _shown(name: str, value: object) -> object:
    """Give a value as it may be printed: URLs without their passwords."""
    if name != "url":
        return value
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list | tuple):
        return tuple(masked(str(each)) for each in cast("list[object]", value))
    return value
