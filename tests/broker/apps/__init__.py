"""Apps that worker processes load."""
