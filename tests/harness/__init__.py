"""What the tests stand on: a private broker, a faulty network, real workers."""
