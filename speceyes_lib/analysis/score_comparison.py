"""Comparison of scores: AUROC, AURC and ties of every score on the same drafts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError
from ..gating.scores import EQUAL_SCORES, SCORES, score_answers
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE, score_answer
from ..stats.calibration import CalibrationBins, brier_terms
from ..stats.checks import as_flags, as_scores
from ..stats.ranking import Ranking
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap, draw_counts, grouped, interval_of

# ------------------------------------------------------------------ judged by one table


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
    """Every score judged on the same samples by the same bootstrap draws, one row a score.

    Columns, each but the first three with `_low` and `_high` of a percentile bootstrap (whole groups are drawn):

    `score n is_probability`; `auroc`; `aurc` and `excess_aurc` (fractions, lower is better); `auroc_gain`: AUROC
    less that of `reference`, by the same draws; `accuracy_at_<c>_pct`: accuracy of the share `c` of most confident
    answers, which is what a threshold chosen for that coverage would accept; and for probabilities `brier` and `ece`
    (nan for the others; draws overstate the calibration error somewhat).

    Args:
        scores: one score a column [samples]; columns without a value are left out.
        right: bool [samples].
        coverages: fractions in (0, 1].
    """
    right = as_flags("right", right)
    if len(scores) != len(right):
        raise UserError(
            f"{len(scores)} samples have scores but {len(right)} have verdicts; give the same samples."
        )
    values = {name: as_scores(name, scores[name]) for name in scores.columns}
    judges = {
        name: _judge(name, value, right, coverages, n_bins)
        for name, value in values.items()
        if not np.isnan(value).all()
    }
    n_groups, group_of = grouped(groups, len(right))
    sample = {name: judge(np.ones((1, len(right)), np.int64)) for name, judge in judges.items()}
    drawn: dict[str, dict[str, list]] = {name: {m: [] for m in told} for name, told in sample.items()}
    if n_groups > 1 and judges:
        for counts in draw_counts(n_groups, len(right), bootstrap):
            weights = counts[:, group_of]
            for name, judge in judges.items():
                for measure, told in judge(weights).items():
                    drawn[name][measure].append(told)
    rows = []
    for name, told in sample.items():
        row: dict[str, Any] = {
            "score": name,
            "n": int((~np.isnan(values[name])).sum()),
            "is_probability": name in SCORES and SCORES[name].is_probability,
        }
        many = {
            measure: np.concatenate(parts) if parts else np.empty(0) for measure, parts in drawn[name].items()
        }
        if reference in sample:
            told = told | {"auroc_gain": told["auroc"] - sample[reference]["auroc"]}
            base = np.concatenate(drawn[reference]["auroc"] or [np.empty(0)])
            many["auroc_gain"] = many["auroc"] - base
        for measure, value in told.items():
            low, high = interval_of(many[measure], bootstrap.level)
            row |= {measure: float(value[0]), f"{measure}_low": low, f"{measure}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _judge(
    name: str, score: NDArray, right: NDArray, coverages: Sequence[float], n_bins: int
) -> Callable[[NDArray], dict[str, NDArray]]:
    """What takes sample weights [draws, n] and gives every measure of the score by name: float64 [draws]."""
    ranking = Ranking(score, right)
    is_probability = name in SCORES and SCORES[name].is_probability
    if is_probability:
        bins = CalibrationBins(score, right, n_bins)
        squares = np.nan_to_num(brier_terms(score, right))
        present = ~np.isnan(score)

    def judge(weights: NDArray) -> dict[str, NDArray]:
        area, best = ranking.areas(weights)
        told = {"auroc": ranking.auroc(weights), "aurc": area, "excess_aurc": area - best}
        for coverage in coverages:
            told[f"accuracy_at_{100 * coverage:g}_pct"] = 100.0 * ranking.accuracy_at(weights, coverage)
        if is_probability:
            told["brier"] = (weights @ squares) / (weights @ present)
            told["ece"] = bins.error(weights)
        return told

    return judge


def identical_scores(table: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """The names in groups whose scores agree on every draft (up to `EQUAL_SCORES`), in the order of the names.

    Args:
        table: a column per score [drafts]; nan (no score) agrees with nan only.
        names: of the columns to compare.
    """
    groups: list[list[str]] = []
    for name in names:
        equal = (
            group
            for group in groups
            if np.allclose(table[group[0]], table[name], rtol=0, atol=EQUAL_SCORES, equal_nan=True)
        )
        group = next(equal, None)
        groups.append([name]) if group is None else group.append(name)
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


# ------------------------------------------------------------------ the geometry of separability


def tie_geometry(
    ks: Sequence[int] = (20, 32, 48, 64, 80, 96),
    ways: Sequence[int] = (1, 2, 3, 4),
    slope: float = DEFAULT_SLOPE,
) -> pd.DataFrame:
    """Confidence of a token whose `ways` best alternatives are equal and whose others are equal far below.

    Rows K, columns m = ways; one way is a token without rival. Computed by the very function that scores drafts;
    how far below the others lie does not matter, which is the point.
    """
    far = -30.0
    rows = {k: [score_answer([[0.0] * m + [far] * (k - m)], "min", k, slope) for m in ways] for k in ks}
    return (
        pd.DataFrame.from_dict(rows, orient="index", columns=list(ways))
        .rename_axis("K")
        .rename_axis("m", axis=1)
    )


def near_tie_geometry(
    gaps: ArrayLike, k: int = DEFAULT_K, slope: float = DEFAULT_SLOPE, depth: float = 12.0, seed: int = 0
) -> pd.DataFrame:
    """What each score says of one token as its runner-up comes closer: columns gap (nats), min, margin, tie_aware.

    The other K - 2 alternatives lie `depth` nats below the best, scattered by one nat (seeded).
    """
    rest = -np.sort(-np.random.default_rng(seed).normal(-depth, 1.0, k - 2))
    rows = []
    for gap in np.asarray(gaps, dtype=np.float64):
        z = np.concatenate([[0.0, -gap], np.minimum(rest, -gap)])
        top = (z - np.log(np.exp(z).sum()))[None, :]
        told = score_answers(top, [0, 1], k, slope)
        rows.append({"gap": gap, **{name: told[name][0] for name in ("min", "margin", "tie_aware")}})
    return pd.DataFrame(rows)


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
    rows, low = [], 0.0
    for high in edges:
        inside = (margin >= low) & ((margin < high) | (high == edges[-1]) & (margin <= high))
        told = {"n": int(inside.sum()), "n_wrong": int((inside & ~right).sum())}
        rows.append({"margin_from": low, "margin_to": high, **told})
        low = high
    return pd.DataFrame(rows)
