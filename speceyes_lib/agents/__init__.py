"""Agents as state machines, and all wording shown to the models."""
