"""What the broker refuses: the reply codes of AMQP, and RabbitMQ's words for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rmqarq.devbroker.frames import Method

SOFT = {
    403: "ACCESS_REFUSED",
    404: "NOT_FOUND",
    405: "RESOURCE_LOCKED",
    406: "PRECONDITION_FAILED",
}
"""These end a channel."""

HARD = {
    320: "CONNECTION_FORCED",
    501: "FRAME_ERROR",
    502: "SYNTAX_ERROR",
    503: "COMMAND_INVALID",
    504: "CHANNEL_ERROR",
    505: "UNEXPECTED_FRAME",
    506: "RESOURCE_ERROR",
    530: "NOT_ALLOWED",
    540: "NOT_IMPLEMENTED",
    541: "INTERNAL_ERROR",
}
"""These end the connection."""

LONGEST = 255


class Refusal(Exception):
    """A client asked for something that it does not get.

    Args:
        code: One of AMQP's; it decides whether the channel or the connection ends.
        explanation: In RabbitMQ's words.
        blamed: The method that is to blame; `None` for the one that was at work.
    """

    def __init__(
        self, code: int, explanation: str, blamed: Method | None = None
    ) -> None:
        super().__init__(code, explanation)
        self.code = code
        self.blamed = blamed
        name = SOFT.get(code) or HARD[code]
        whole = f"{name} - {explanation}".encode("utf-8", "surrogateescape")
        if len(whole) > LONGEST:
            whole = whole[: LONGEST - 3] + b"..."
        self.text = whole.decode("utf-8", "ignore")

    @property
    def hard(self) -> bool:
        """Whether it ends the connection, not only the channel."""
        return self.code in HARD


def access_refused(explanation: str) -> Refusal:
    """It may not be done by this client, or by any (403)."""
    return Refusal(403, explanation)


def not_found(what: str) -> Refusal:
    """There is no such thing (404)."""
    return Refusal(404, f"no {what}")


def locked(what: str) -> Refusal:
    """It belongs to another connection (405)."""
    return Refusal(
        405,
        f"cannot obtain exclusive access to locked {what}. It could be originally"
        " declared on another connection or the exclusive property value does not"
        " match that of the original declaration.",
    )


def precondition_failed(explanation: str) -> Refusal:
    """It does not fit what is there, or makes no sense (406)."""
    return Refusal(406, explanation)
