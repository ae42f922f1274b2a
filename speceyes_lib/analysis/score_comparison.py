"""Comparison of scores on the same drafts: AUROC, AURC, and how many drafts nearly tie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..gating.scores import EQUAL_SCORES, score_of
from ..stats.calibration import CalibrationBins, brier_terms
from ..stats.checks import as_flags, as_scores
from ..stats.ranking import Ranking
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap, draw_counts, grouped, interval_of


def compare_scores(
    scores: pd.DataFrame,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    coverages: Sequence[float] = (0.5,),
    reference: str = "min",
    n_bins: int = 10,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> pd.DataFrame:
    """Measures of every score on the same samples and the same bootstrap draws, a row per score.

    Columns, each but the first three with `_low` and `_high` of a percentile bootstrap (whole groups are drawn):

    `score n is_probability`; `auroc`; `aurc` and `excess_aurc` (fractions, lower is better); `auroc_gain`: AUROC
    less that of `reference`, by the same draws; `accuracy_at_<c>_pct`: accuracy of the share `c` of most confident
    answers, which is what a threshold chosen for that coverage would accept; and for probabilities `brier` and `ece`
    (nan for the others; draws overstate the calibration error somewhat).

    Args:
        scores: one score a column [samples]; columns without a value are left out.
        right: bool [samples].
        groups: [samples] of anything sortable; samples of one group are drawn together.
        coverages: fractions in (0, 1].
        reference: the score that `auroc_gain` is relative to.
        n_bins: of the calibration error.
        bootstrap: level, draws and seed.
    """
    right = as_flags("right", right)
    if len(scores) != len(right):
        raise UserError(
            f"{len(scores)} samples have scores but {len(right)} have verdicts; give the same samples."
        )
    values = {name: as_scores(name, scores[name]) for name in scores.columns}
    values = {name: value for name, value in values.items() if not np.isnan(value).all()}
    measures = {name: _measures_of(name, value, right, coverages, n_bins) for name, value in values.items()}
    n_groups, group_of = grouped(groups, len(right))
    draws = draw_counts(n_groups, len(right), bootstrap) if n_groups > 1 and values else ()
    # the sample itself comes first, the draws follow
    weights = chain([np.ones((1, len(right)), np.int64)], (counts[:, group_of] for counts in draws))
    parts = [{name: measure(part) for name, measure in measures.items()} for part in weights]
    results = {
        name: {key: np.concatenate([part[name][key] for part in parts]) for key in parts[0][name]}
        for name in measures
    }
    rows = []
    for name, result in results.items():
        if reference in results:
            result = result | {"auroc_gain": result["auroc"] - results[reference]["auroc"]}
        row: dict[str, Any] = {
            "score": name,
            "n": int((~np.isnan(values[name])).sum()),
            "is_probability": score_of(name).is_probability,
        }
        for key, drawn in result.items():
            low, high = interval_of(drawn[1:], bootstrap.level)
            row |= {key: float(drawn[0]), f"{key}_low": low, f"{key}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _measures_of(
    name: str, score: NDArray, right: NDArray, coverages: Sequence[float], n_bins: int
) -> Callable[[NDArray], dict[str, NDArray]]:
    """A function from sample weights [draws, n] to every measure of the score by name: float64 [draws]."""
    ranking = Ranking(score, right)
    is_probability = score_of(name).is_probability
    if is_probability:
        bins = CalibrationBins(score, right, n_bins)
        squares = np.nan_to_num(brier_terms(score, right))
        present = ~np.isnan(score)

    def measure(weights: NDArray) -> dict[str, NDArray]:
        area, best = ranking.areas(weights)
        values = {"auroc": ranking.auroc(weights), "aurc": area, "excess_aurc": area - best}
        for coverage in coverages:
            values[f"accuracy_at_{100 * coverage:g}_pct"] = 100.0 * ranking.accuracy_at(weights, coverage)
        if is_probability:
            drawn = weights @ present  # a resample may hold no sample with this score
            no_value = np.full(len(drawn), np.nan)
            values["brier"] = np.divide(weights @ squares, drawn, out=no_value, where=drawn > 0)
            values["ece"] = bins.error(weights)
        return values

    return measure


def identical_scores(table: pd.DataFrame) -> list[list[str]]:
    """The names of the columns in groups whose scores agree on every draft (up to `EQUAL_SCORES`), in their order.

    Args:
        table: a column per score [drafts]; nan (no score) agrees with nan only.
    """
    groups: list[list[str]] = []
    for name in table:
        for group in groups:
            if np.allclose(table[group[0]], table[name], rtol=0, atol=EQUAL_SCORES, equal_nan=True):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def merged_scores(
    compared: pd.DataFrame, groups: Sequence[Sequence[str]], reference: str = "min"
) -> pd.DataFrame:
    """Rows of `compare_scores`, one per group of `identical_scores`.

    Index: `scores`, the names of the group (a tuple). What only a probability has is that of the group's first
    probability; the gain of the reference over itself is missing.
    """
    by_name = compared.set_index("score")
    claims = [c for c in compared if c.startswith(("brier", "ece", "is_probability"))]
    rows = {}
    for group in groups:
        row = by_name.loc[group[0]].copy()
        row[claims] = next((by_name.loc[g] for g in group if by_name.loc[g, "is_probability"]), row)[claims]
        if reference in group:
            row[[c for c in compared if c.startswith("auroc_gain")]] = np.nan
        rows[tuple(group)] = row
    table = pd.DataFrame(list(rows.values()), columns=by_name.columns).infer_objects()
    table.index = pd.Index(list(rows), name="scores", tupleize_cols=False)
    return table


def near_ties(
    margin: ArrayLike, right: ArrayLike, edges: Sequence[float] = (0.1, 0.25, 0.5, 0.8, 1.0)
) -> pd.DataFrame:
    """How many drafts hold a token whose two best alternatives nearly tie, and how many of these are wrong.

    Args:
        margin: smallest (p_1 - p_2) / (p_1 + p_2) of each draft (`smallest_margin`), nan: no tokens [n].
        right: bool [n].
        edges: upper ends of the bins, the last one included.

    Returns:
        One row a bin: `margin_from margin_to n n_wrong`.
    """
    margin, right = as_scores("margin", margin), as_flags("right", right)
    scored = ~np.isnan(margin)
    bins = np.array([0.0, *edges])  # each without its upper end, but for the last
    counts = {"n": margin[scored], "n_wrong": margin[scored & ~right]}
    ends = {"margin_from": bins[:-1], "margin_to": bins[1:]}
    return pd.DataFrame(ends | {name: np.histogram(part, bins)[0] for name, part in counts.items()})
