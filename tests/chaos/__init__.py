"""Faults on purpose, and a ledger that shows whether a job was lost."""
