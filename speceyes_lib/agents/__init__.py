"""Agents as pure state machines: a conversation in, the next request or the final answer out."""

from .base import Agent
from .deepeyes import DeepEyesAgent

__all__ = ["Agent", "DeepEyesAgent"]
