"""The command that grants a user all that an App needs, and no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rmqarq.findings import sentence
from rmqarq.wire.names import suspect_lane
from rmqarq.wire.topology import dead_letter_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rmqarq.case import Case, Sight
    from rmqarq.findings import Sentence


def granting(case: Case, sight: Sight) -> Sentence:
    """Give the command that grants all this App needs; it replaces what was granted."""
    patterns = _passive(case) if case.settings.declare == "passive" else _active(case)
    configure, write, read = (_any_of(each) for each in patterns)
    endpoint = sight.attempt.endpoint
    return sentence(
        "rabbitmqctl set_permissions -p '{vhost}' '{user}' '{configure}' '{write}'"
        " '{read}'",
        vhost=endpoint.vhost,
        user=endpoint.user,
        configure=configure,
        write=write,
        read=read,
    )


def _passive(case: Case) -> tuple[Sequence[str], ...]:
    prefix, (queues, lanes, _) = re.escape(case.settings.prefix), _queues(case)
    sent = ["amq\\.default", rf"{prefix}\.delay\.\d\.entry"]
    if case.settings.delays == "plugin":
        sent.append(rf"{prefix}\.delayed")
    return (), sent, (*queues, *lanes)


def _active(case: Case) -> tuple[Sequence[str], ...]:
    prefix, (queues, lanes, dead) = re.escape(case.settings.prefix), _queues(case)
    delays = r"delay(ed|\..+)" if case.settings.delays == "plugin" else r"delay\..+"
    objects = rf"{prefix}\.(due|lost|{delays})"
    foreign = [re.escape(each) for each in case.foreign]
    own = [each for each in queues if each not in foreign]
    return (
        (objects, *own, *lanes, *dead),
        ("amq\\.default", objects, *queues, *lanes, *dead),  # foreign ones are bound
        (objects, *queues, *lanes),
    )


def _queues(case: Case) -> tuple[list[str], ...]:
    """Give all queues, their lanes and their dead letters, as patterns."""
    names = (
        case.queues,
        map(suspect_lane, case.queues),
        [dead_letter_queue(each, case.settings) for each in case.queues],
    )
    return tuple([re.escape(each) for each in given] for given in names)


def _any_of(names: Sequence[str]) -> str:
    return f"^({'|'.join(names)})$" if names else "^$"
