"""The dev broker's own tests: other people's clients speak to it."""
