"""Apps that real worker processes load."""
