"""What rmqarq promises, on a real broker and with real workers."""
