"""Frames that answer a question about a run. Numbers only: no label, no colour, no formatted text."""
