"""Where the dev broker is deliberately not RabbitMQ."""

EXPLAINED: dict[str, str] = {}
"""Scenarios with the reason why the difference stays."""
