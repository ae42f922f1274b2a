"""How the library's frames are shown: a list of columns for each. See `columns.show`.

The comment above a list names the function whose frame it shows. Blank cells mean "no such number".
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from ..gating.certificates import Rule
from ..gating.scores import SCORES
from ..judging.benchmark_measures import MEASURES, OVERALL
from ..replay.settings import POOLED
from .columns import Column, milliseconds, percent, words
from .formatting import p_value
from .labels import method_label, rule_labels, split_label

COUNT = ".0f"  # counts beside missing ones are floats


def _pct(name: str, label: str, n: str | None = None) -> Column:
    """A column of percentages with its interval."""
    ends = (name.replace("_pct", "_low_pct"), name.replace("_pct", "_high_pct"))
    return Column(name, f"{label} [95 %]", ".1f", ends, n)


DIFFERENCE = Column("diff_pp", "points [95 %]", "+.1f", ("low_pp", "high_pp"))
P_VALUE = Column("p_value", "McNemar p", p_value)

# ------------------------------------------------------------------ verdicts

# verdict_frames.agreement
AGREEMENT = (
    Column("raters"),
    Column("n"),
    Column("agree_pct", "agree %", ".2f"),
    Column("kappa", format=".2f"),
    *(Column(f"{a}_{b}", f"{a}, {b}") for a in ("right", "wrong") for b in ("right", "wrong")),
)
_SCORER = (Column("split", format=split_label), Column("scorer"))
# scorer_comparison.accuracy_by_scorer
SCORERS_ACCURACY = (
    *_SCORER,
    Column("accuracy_pct", "accuracy %", ".1f"),
    *map(Column, ("n", "dropped", "open")),
)
# scorer_comparison.pope_by_scorer
SCORERS_POPE = (
    *_SCORER,
    *(Column(f"{name}_pct", f"{name} %", ".1f") for name in ("accuracy", "precision", "recall")),
    Column("f1_pct", "F1 %", ".1f"),
    Column("yes_pct", "yes %", ".1f"),
    *map(Column, ("neither", "n")),
)
# scorer_comparison.corrections
CORRECTIONS = (
    Column("step"),
    Column("gained"),
    Column("lost"),
    Column("moved_points", "points moved", "+.2f"),
    Column("accuracy_pct", "accuracy %", ".2f"),
    Column("n"),
)


def measure_columns(table: pd.DataFrame, benchmark: str) -> list[Column]:
    """Columns of one benchmark's table of `benchmark_measures.by_benchmark`: what its authors measure."""
    measures = [m for m in MEASURES if m in table]
    return [
        Column("split", format=lambda s: s if s == OVERALL else split_label(f"{benchmark}/{s}")),
        Column("arm", format=method_label),
        *(Column(m, MEASURES[m], ".1f", (f"{m}_low", f"{m}_high"), f"{m}_n") for m in measures),
    ]


# ------------------------------------------------------------------ a run

# results.arm_results
HEADLINE = (
    Column("method", format=method_label),
    _pct("accuracy_pct", "accuracy %"),
    *(Column(name, name, COUNT) for name in ("n", "errors", "unparsed", "undecided")),
    Column("wall_s", "wall-clock s", ".1f"),
    Column("speedup", "speedup [95 %]", ".2f", ("speedup_low", "speedup_high"), unit="x"),
    Column("over", format=method_label),
    Column("beta", format=".2f"),
    Column("alpha", format=".2f"),
    Column("accepted_pct", "accepted %", ".1f"),
)
# results.comparison_results
COMPARISONS = (
    Column("first", "method", method_label),
    Column("second", "against", method_label),
    Column("split", format=split_label),
    DIFFERENCE,
    Column("only_first", "only first right", COUNT),
    Column("only_second", "only second right", COUNT),
    P_VALUE,
    Column("n", format=COUNT),
)
# results.first_look_results
FIRST_LOOK = (
    Column("samples"),
    Column("n", format=COUNT),
    _pct("first_look_pct", "first look %"),
    _pct("zoom_pct", "with zoom %"),
    Column("diff_pp", "gain in points [95 %]", "+.1f", ("low_pp", "high_pp")),
    P_VALUE,
)


def auroc_columns(scores: Sequence[str]) -> list[Column]:
    """Columns of `results.auroc_results`."""
    values = [Column(score, score, ".2f", (f"{score}_low", f"{score}_high")) for score in scores]
    return [Column("drafts", format=split_label), Column("n", format=COUNT), *values]


# ------------------------------------------------------------------ scores, ledger, certificates


def score_columns(table: pd.DataFrame) -> list[Column]:
    """Columns of `score_comparison.merged_scores`; those on probabilities only where one of the scores is one."""

    def cell(name: str, label: str, form: str = ".3f") -> list[Column]:
        ends = (f"{name}_low", f"{name}_high")
        return [Column(name, f"{label} [95 %]", form, ends)] if name in table else []

    coverages = [c for c in table if c.startswith("accuracy_at_") and not c.endswith(("_low", "_high"))]
    return [
        Column("scores", "score", lambda names: " = ".join(SCORES[name].label for name in names)),
        Column("n"),
        *cell("auroc", "AUROC"),
        *cell("auroc_gain", "less that of min", "+.3f"),
        Column("aurc", "AURC", ".4f"),
        *cell("excess_aurc", "excess AURC", ".4f"),
        *(column for c in coverages for column in cell(c, f"accuracy % of the surest {c[12:-4]} %", ".1f")),
        *cell("brier", "Brier"),
        *cell("ece", "ECE"),
    ]


# ConfidenceData.ledger
LEDGER = (
    *map(Column, ("id", "outcome", "question", "draft", "agent")),
    Column("confidence", format=".4f"),
    Column("saved_s", "ms saved", milliseconds),
)


def certificate_columns(rules: Sequence[Rule]) -> list[Column]:
    """Columns of `confidence_data.rule_results`.

    The held-out risk is that of the test halves. A test half is a sample itself, so a certified threshold may exceed
    its target there now and then.
    """
    labels = rule_labels(rules)
    return [
        Column("rule", format=lambda rule: labels[rule].replace("\n", " ")),
        Column("certified", format=COUNT),
        Column("repeats", "of", COUNT),
        Column("threshold", format=".4f"),
        Column("target_pct", "target risk %", ".1f"),
        Column("risk_pct", "held-out risk %", ".2f"),
        Column("risk_largest_pct", "largest", ".1f"),
        Column("coverage_pct", "accepted %", ".1f"),
        Column("gain_pp", "accuracy less agent's", "+.2f"),
        Column("speedup", format=".2f", unit="x"),
    ]


# ------------------------------------------------------------------ costs

_COSTS = {"route": "router", "draft": "draft", "agent": "agent", "gain": "saved, by the formula"}
_COSTS |= {"saved": "saved, as charged", "price": "price"}
# payoff.break_even
BREAK_EVEN = (
    Column("task", "split", lambda task: "all" if task == POOLED else split_label(task)),
    Column("n"),
    Column("alpha", format=".2f"),
    Column("beta", format=".2f"),
    Column("accepted", "accepted %", percent),
    Column("overhead", "break-even %", percent),
    *(Column(f"{name}_ms", f"{label} ms", ".1f") for name, label in _COSTS.items()),
    Column("pays", format=lambda pays: "yes" if pays else "no"),
)
# the second frame of ConfidenceData.fleet_plan
FLEET_LOAD = (
    Column("workload", format={"funnel": "with the gate", "agent": "agent alone"}.__getitem__),
    Column("users", format=","),
    Column("small", "small replicas"),
    Column("large"),
    Column("throughput_per_s", "requests / s", ".1f"),
    Column("p50_s", "median s", ".3f"),
    Column("p95_s", "95 % within s", ".3f"),
    Column("small_utilisation", "small busy %", lambda share: percent(share, 0)),
    Column("large_utilisation", "large busy %", lambda share: percent(share, 0)),
)

# ------------------------------------------------------------------ studies

_FIDELITY = (Column("setting"), Column("n"))
# fidelity.compare_with_replay
FIDELITY = (
    *_FIDELITY,
    *(Column(f"{name}_differ", f"{name} differ") for name in ("decisions", "answers", "verdicts")),
    Column("confidence_off", "confidence off", ".0e"),
    Column("accuracy_pct_predicted", "accuracy %, replayed", ".2f"),
    Column("accuracy_pct_measured", "measured", ".2f"),
    Column("accepted_predicted", "accepted, replayed"),
    Column("accepted_measured", "accepted"),
)
FIDELITY_COSTS = (
    *_FIDELITY,
    Column("wall_s_predicted", "wall-clock s, replayed", ".1f"),
    Column("wall_s_measured", "measured", ".1f"),
    Column("speedup_predicted", "speedup, replayed", ".2f", unit="x"),
    Column("speedup_measured", "speedup, measured", ".2f", unit="x"),
    Column("off_pct", "off", ".1f", unit=" %"),
    Column("cost_note", "note", lambda note: textwrap.fill(note, 60)),
)
# position_bias.by_order
ORDERS = (
    Column("task", format=split_label),
    Column("order", format=words),
    Column("accuracy_pct", "accuracy % [95 %]", ".1f", ("low_pct", "high_pct")),
    *map(Column, ("n", "errors", "unparsed")),
    Column("first_pct", "first %", ".1f"),
    Column("first_right_pct", "right first %", ".1f"),
    Column("diff_pp", "difference [95 %]", "+.1f", ("diff_low_pp", "diff_high_pp"), unit=" pp"),
    Column("p_value", "p", p_value),
    Column("changed", format=COUNT),
)
