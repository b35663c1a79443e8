"""What RabbitMQ does, the dev broker does: both are told the same, and compared."""
