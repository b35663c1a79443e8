"""Tests of rmqarq."""
