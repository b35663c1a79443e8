"""Calls of the public interface, judged by the type checkers."""
