"""Tests of tasks: a world with a broker and its own time, or the executor alone."""
from rmqarq.testing.world import World, world
