"""Widgets over finished runs. No model is loaded."""
