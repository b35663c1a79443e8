"""Tests of the worker that need no broker, file by file."""
