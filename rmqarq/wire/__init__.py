"""All that knows AMQP 0-9-1."""
