"""Minimise an objective: one algorithm a file, all with the same result."""
