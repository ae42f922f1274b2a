"""Labels of methods, splits and agents for readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..agents.registry import AGENTS
from ..gating.scores import SCORES
from ..runs.arms import BATCHED
from ..tasks.registry import AVERAGE, SPLITS_BY_TASK

if TYPE_CHECKING:
    from ..gating.certificates import Rule

_METHODS = {
    "baseline": "Agent alone",
    "draft_only": "Draft alone",
    "specreason": "SpecReason",
    "router_only": "Router, no gate",
    "gated": "SpecEyes",
    "collect": "Instrumented pass",
    **{f"speceyes_{name}": f"SpecEyes ({score.short})" for name, score in SCORES.items()},
}
_SPLITS = {task: split.label for task, split in SPLITS_BY_TASK.items()} | {AVERAGE: "Average"}
# rules that `certificates.certify` adds for contrast
_CONTRAST = {
    "per_split": "no less accurate, split by split",
    "per_split_on_test": "the same, chosen on the test half",
}
_AGENTS = {name: kind.label for name, kind in AGENTS.items()} | {"none": "no agent"}


def method_label(method: str) -> str:
    """A method or an arm for readers: "SpecEyes (min), batched"; unknown ones keep their name."""
    name = method.removesuffix(BATCHED)
    return _METHODS.get(name, name) + (", batched" if method.endswith(BATCHED) else "")


def split_label(split: str) -> str:
    """A split for readers: "V* direct"; unknown splits keep their name."""
    return _SPLITS.get(split, split)


def agent_label(agent: str) -> str:
    """An agent for readers: "DeepEyes"; unknown agents keep their name."""
    return _AGENTS.get(agent, agent)


def rule_labels(rules: Sequence[Rule]) -> dict[str, str]:
    """Rule -> its name in tables and figures, with the kind of its guarantee on a second line."""
    named = {r.name: r.label if r.guarantee == "none" else f"{r.label}\n({r.guarantee})" for r in rules}
    return named | _CONTRAST
