"""Where the dev broker is deliberately not RabbitMQ."""

EXPLAINED: dict[str, str] = {
    "the_next_active_consumer_gets_what_lies_there": (
        "RabbitMQ 3.10 forgets the messages of a classic queue when its active consumer"
        " is cancelled: the next one gets nothing, and the next message that is"
        " published ends the queue with all that it held"
    ),
}
"""Scenarios with the reason why the difference stays."""
