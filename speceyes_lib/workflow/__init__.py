"""Notebooks chained by one config, and the command line."""
