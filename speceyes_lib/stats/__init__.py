"""Estimates with intervals: arrays go in, values with their uncertainty come out."""
