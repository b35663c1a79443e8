"""rmqarq beside plain aiormq, on one broker and in one run: see README.md."""
