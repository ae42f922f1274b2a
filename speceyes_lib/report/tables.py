"""How the library's frames are shown: a list of columns for each. See `columns.show`.

The comment above a list names the function whose frame it shows. Blank cells mean "no such number".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from ..gating.certificates import Rule
from ..gating.scores import score_of
from ..judging.benchmark_measures import MEASURES, OVERALL
from ..judging.rewards import VARIANTS
from .columns import Column, words
from .formatting import p_value
from .labels import method_label, rule_labels, split_label

COUNT = ".0f"  # counts beside missing ones are floats


def _pct(name: str, label: str, n: str | None = None) -> Column:
    """A column of percentages with its interval."""
    ends = (name.replace("_pct", "_low_pct"), name.replace("_pct", "_high_pct"))
    return Column(name, f"{label} [95 %]", ".1f", ends, n)


P_VALUE = Column("p_value", "McNemar p", p_value)


def measure_columns(table: pd.DataFrame, benchmark: str) -> list[Column]:
    """Columns of one benchmark's table of `benchmark_measures.by_benchmark`: what its authors measure."""
    measures = [m for m in MEASURES if m in table]
    return [
        Column("split", format=lambda s: s if s == OVERALL else split_label(f"{benchmark}/{s}")),
        Column("arm", format=method_label),
        *(Column(m, MEASURES[m], ".1f", (f"{m}_low", f"{m}_high"), f"{m}_n") for m in measures),
    ]


def auroc_columns(table: pd.DataFrame) -> list[Column]:
    """Columns of `results.auroc_results`."""
    scores = [name for name in table if f"{name}_low" in table]
    values = [Column(score, score, ".2f", (f"{score}_low", f"{score}_high")) for score in scores]
    return [Column("drafts", format=split_label), Column("n", format=COUNT), *values]


def score_columns(table: pd.DataFrame) -> list[Column]:
    """Columns of `score_comparison.merged_scores`; those on probabilities only where one of the scores is one."""

    def cell(name: str, label: str, form: str = ".3f") -> list[Column]:
        ends = (f"{name}_low", f"{name}_high")
        return [Column(name, f"{label} [95 %]", form, ends)] if name in table else []

    coverages = [c for c in table if c.startswith("accuracy_at_") and not c.endswith(("_low", "_high"))]
    return [
        Column("scores", "score", lambda names: " = ".join(score_of(name).label for name in names)),
        Column("n"),
        *cell("auroc", "AUROC"),
        *cell("auroc_gain", "less that of min", "+.3f"),
        Column("aurc", "AURC", ".4f"),
        *cell("excess_aurc", "excess AURC", ".4f"),
        *(column for c in coverages for column in cell(c, f"accuracy % of the surest {c[12:-4]} %", ".1f")),
        *cell("brier", "Brier"),
        *cell("ece", "ECE"),
    ]


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


# the tables of the notebooks: name -> columns, or a function that makes them from the frame
TABLES: dict[str, Sequence[Column] | Callable[[pd.DataFrame], Sequence[Column]]] = {
    # results.arm_results
    "headline": (
        Column("method", format=method_label),
        _pct("accuracy_pct", "accuracy %"),
        *(Column(name, name, COUNT) for name in ("n", "errors", "unparsed", "undecided")),
        Column("wall_s", "wall-clock s", ".1f"),
        Column("speedup", "speedup [95 %]", ".2f", ("speedup_low", "speedup_high"), unit="x"),
        Column("speedup_predicted", "predicted", ".2f", unit="x"),
        Column("over", format=method_label),
        Column("beta", format=".2f"),
        Column("alpha", format=".2f"),
        Column("accepted_pct", "accepted %", ".1f"),
    ),
    # run_result.RunResult.comparisons
    "comparisons": (
        Column("first", "method", method_label),
        Column("second", "against", method_label),
        Column("split", format=split_label),
        Column("diff_pp", "points [95 %]", "+.1f", ("low_pp", "high_pp")),
        Column("only_first", "only first right", COUNT),
        Column("only_second", "only second right", COUNT),
        P_VALUE,
        Column("n", format=COUNT),
    ),
    # run_result.RunResult.first_look
    "first_look": (
        Column("samples"),
        Column("n", format=COUNT),
        _pct("first_look_pct", "first look %"),
        _pct("zoom_pct", "with zoom %"),
        Column("diff_pp", "gain in points [95 %]", "+.1f", ("low_pp", "high_pp")),
        P_VALUE,
    ),
    "auroc": auroc_columns,
    "scores": score_columns,
    # layer_gates.LayerRun.certified
    "layer_certificates": (
        Column("score", format=lambda name: score_of(name).label),
        Column("coverage_pct", "accepted %", ".1f"),
        Column("target_pct", "wrong drafts accepted: at most %", ".1f"),
        Column("risk_pct", "held out %", ".1f"),
        Column("risk_largest_pct", "largest", ".1f"),
        Column("gain_pp", "accuracy less agent's", "+.2f"),
        Column("speedup", format=".2f", unit="x"),
        Column("repeats", format=COUNT),
    ),
    # layer_gates.LayerRun.early_exits
    "early_exits": (
        Column("rule"),
        Column("first", "from layer", COUNT),
        Column("threshold", "if at least", "g"),
        Column("layers", "layers a token", ".2f"),
        Column("saved_pct", "layers saved %", ".1f"),
        *map(Column, ("n", "n_changed", "n_inexact", "won", "lost")),
        Column("accuracy_pct", "accuracy %", ".1f"),
        Column(
            "diff_pp", "less the whole draft's [95 %]", "+.1f", ("diff_low_pp", "diff_high_pp"), unit=" pp"
        ),
    ),
    # second_drafts.SecondDrafts.agreement
    "draft_agreement": (
        Column("way", "second draft", words),
        *map(Column, ("n", "left_out")),
        Column("agree_pct", "agree %", ".1f"),
        Column("right_if_agree_pct", "right where they agree %", ".1f"),
        Column("n_disagree", "disagree"),
        Column("right_if_not_pct", "right where not %", ".1f"),
        Column("extra_ms", "ms more a draft", ".1f"),
    ),
    # second_drafts.SecondDrafts.at_equal_seconds
    "equal_seconds": (
        Column("way", "second draft", words),
        Column("gate"),
        Column("accepted_pct", "accepted %", ".1f"),
        Column("seconds", "s a sample", ".3f"),
        Column("accuracy_pct", "accuracy %", ".1f"),
        Column("one_accepted_pct", "one draft: accepted %", ".1f"),
        Column("one_accuracy_pct", "its accuracy %", ".1f"),
        Column("diff_pp", "two less one [95 %]", "+.1f", ("diff_low_pp", "diff_high_pp"), unit=" pp"),
        Column("n"),
    ),
    # position_bias.by_order
    "position_bias": (
        Column("task", format=split_label),
        Column("order", format=words),
        Column("accuracy_pct", "accuracy % [95 %]", ".1f", ("low_pct", "high_pct")),
        *map(Column, ("n", "errors", "unparsed")),
        Column("first_pct", "first %", ".1f"),
        Column("first_right_pct", "right first %", ".1f"),
        Column("diff_pp", "difference [95 %]", "+.1f", ("diff_low_pp", "diff_high_pp"), unit=" pp"),
        Column("p_value", "p", p_value),
        Column("changed", format=COUNT),
    ),
    # training_views.alarm_table
    "alarms": (
        Column("arm"),
        Column("seed"),
        Column("step", "first step"),
        Column("name", "warning"),
        Column("key", "looks at"),
        Column("value", "mean there", ".3g"),
        Column("limit", format=".3g"),
    ),
    # training_views.held_out_results
    "held_out": (
        *map(Column, ("sampling", "arm", "seeds", "n")),
        Column("accuracy_pct", "accuracy % [95 %]", ".1f", ("low_pct", "high_pct")),
        Column("hard_pct", "on small targets %", ".1f"),
        Column("zoom_hard_pct", "zooms, small %", ".1f"),
        Column("zoom_easy_pct", "zooms, large %", ".1f"),
        Column("box_iou", "IoU", ".2f"),
        Column("diff_pp", "less the start's [95 %]", "+.1f", ("low_pp", "high_pp"), unit=" pp"),
        P_VALUE,
    ),
    # training_views.reward_variants
    "reward_variants": (
        Column("arm"),
        Column("n", "trajectories"),
        Column("score", "as recorded", ".3f"),
        *(Column(name, format=".3f") for name in VARIANTS),
        Column("paid", "bonuses"),
        Column("without_crop", "of them without a crop"),
        Column("zero_pct", "scores of 0, %", ".1f"),
    ),
}
