"""Tests of the AMQP floor, file by file."""
