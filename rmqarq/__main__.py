"""`python -m rmqarq` is the command line."""

from rmqarq.cli import main

main()
