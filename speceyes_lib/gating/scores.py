"""Every score of a draft, in one registry: the paper's four (`separability.py`) and others from the same evidence.

Higher means surer, nan means "no score". The formulas are in docs/glossary.md. Scores of tokens are pooled over an
answer by the smallest, as the paper's `min` is.

S depends on K and slope, so scores are compared by ranking and at equal coverage, never at equal thresholds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, UserError, nearest
from ..plugins import contributed
from ..runs.evidence import Evidence
from ..stats.checks import as_flags
from ..stats.resampling import grouped
from ..tasks.sample import LETTERS
from .score import Score, Tokens
from .separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES, score_grid, token_separability

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import ClassifierMixin


def _probability(t: Tokens) -> NDArray[np.float64]:
    return np.exp(np.minimum(t.first, 0.0))


def _tie_aware(t: Tokens) -> NDArray[np.float64]:
    gap = np.where(np.isneginf(t.second), np.inf, t.first - t.second)
    return t.separability * np.tanh(gap / 2)


# Adding a score takes one line here, with a function of the tokens.
SCORES = {
    score.name: score
    for score in (
        Score("min", "separability, min", "min"),
        Score("mean", "separability, mean", "mean"),
        Score("bottom20", "separability, bottom", "bottom"),
        Score("log", "log (length-normalised)", "log", is_probability=True),
        Score("min_prob", "least probable token", "min prob", is_probability=True, of_tokens=_probability),
        Score("margin", "margin, top 2", "margin", of_tokens=lambda t: _probability(t) - np.exp(t.second)),
        Score(
            "entropy",
            "entropy, top K",
            "entropy",
            of_tokens=lambda t: 1.0 - _entropy(t.top) / np.log(t.top.shape[1]),
        ),
        Score("tie_aware", "separability x margin", "sep. x margin", of_tokens=_tie_aware),
        Score(
            "sequence",
            "whole answer",
            "sequence",
            is_probability=True,
            of_tokens=lambda t: np.minimum(t.first, 0.0),
            pool=np.add,
            finish=np.exp,
        ),
        Score("options", "options only", "options", "evidence and options", is_probability=True),
        Score("router", "router's no over yes", "router", "the router's yes and no"),
        Score("combination", "combination, cross-fitted", "combination", "verdicts", is_probability=True),
        # of the draft model's layers: `layers.py`
        Score("settling", "settling depth", "settling", "layers"),
        Score("layer_agreement", "layer agreement", "agreement", "layers"),
        Score("layer_margin", "margin over layers", "layer margin", "layers"),
        Score("probe", "probe, cross-fitted", "probe", "layers and verdicts", is_probability=True),
    )
}
for _name, _added in contributed("SCORES", SCORES).items():
    if not isinstance(_added, Score) and not callable(_added):
        raise ConfigError(f"score {_name!r} of a plugin must be a function of an answer's log-probabilities")
    SCORES[_name] = (
        _added
        if isinstance(_added, Score)
        else Score(_name, _name, _name.replace("_", " "), of_answer=_added)
    )
# what the live gate, replay, the choice of a threshold and the explorer offer
GATE_SCORES = tuple(name for name, score in SCORES.items() if score.needs == "evidence")
EQUAL_SCORES = 1e-9  # scores that differ by less are the same: rounding alone moves them by about 1e-15


def score_of(name: str) -> Score:
    """What is known of a score; of one that was added to a run, its name."""
    return SCORES.get(name) or Score(name, name.replace("_", " "), name.replace("_", " "), "the run")


def check_score(name: str) -> None:
    """Raise UserError unless the gate can go by a score of this name."""
    if name not in GATE_SCORES:
        raise UserError(f"no score {name!r}{nearest(name, GATE_SCORES)}; there are {', '.join(GATE_SCORES)}")


def score_answers(
    top_logprobs: ArrayLike,
    offsets: ArrayLike,
    k: int = DEFAULT_K,
    slope: float = DEFAULT_SLOPE,
    names: Sequence[str] = GATE_SCORES,
) -> dict[str, NDArray[np.float64]]:
    """Scores of many answers from their log-probabilities: name -> float64 [answers], nan for no score.

    Args:
        top_logprobs: [all tokens, K_stored] log-probabilities, rows descending, answers one after the other.
        offsets: integers [answers + 1]; answer i owns the rows offsets[i] up to offsets[i + 1].
        k: alternatives that count in the separability and in the entropy.
        slope: slope of the separability's sigmoid.
        names: of `GATE_SCORES`.

    Raises:
        UserError: an unknown name, or as `separability.score_grid`.
    """
    for name in names:
        check_score(name)
    of_paper = tuple(name for name in names if name in PAPER_SCORES)
    grid = score_grid(top_logprobs, offsets, (k,), of_paper, slope)  # checks the arguments
    scores = {name: grid[name][:, 0] for name in of_paper}
    others = [SCORES[name] for name in names if name not in PAPER_SCORES]
    top, bounds = np.asarray(top_logprobs), np.asarray(offsets)
    if not others or not len(top):
        return scores | {score.name: np.full(len(bounds) - 1, np.nan) for score in others}
    with np.errstate(invalid="ignore"):
        separability = 1.0 / (1.0 + np.exp(-slope * token_separability(top, k)))
        first, second = top[:, 0].astype(np.float64), top[:, 1].astype(np.float64)
        tokens = Tokens(first, second, separability, top[:, :k])
        for score in others:
            if score.of_answer is not None:
                scores[score.name] = _by_answer(score, tokens.top, bounds)
                continue
            values = np.where(np.isnan(separability), np.nan, score.of_tokens(tokens))
            scores[score.name] = score.finish(_pooled(score.pool, values, bounds))
    return scores


def _by_answer(score: Score, top: NDArray, bounds: NDArray) -> NDArray[np.float64]:
    """A score that is a function of one answer; nan for an answer without tokens."""
    values = np.full(len(bounds) - 1, np.nan)
    for i in np.flatnonzero(np.diff(bounds)):
        answer = top[bounds[i] : bounds[i + 1]].astype(np.float64)
        try:
            values[i] = score.of_answer(answer)
        except Exception as error:
            raise UserError(
                f"score {score.name!r} failed on an answer of {len(answer)} tokens and {top.shape[1]} alternatives "
                f"({type(error).__name__}: {error}); it must return a number, or nan for no score"
            ) from error
    return values


def smallest_margin(top_logprobs: ArrayLike, offsets: ArrayLike) -> NDArray[np.float64]:
    """The smallest (p_1 - p_2) / (p_1 + p_2) of every answer's tokens, nan without tokens: 0 is a tie, 1 no rival."""
    bounds, top = np.asarray(offsets), np.asarray(top_logprobs, dtype=np.float64)
    if bounds[-1] == 0:
        return np.full(len(bounds) - 1, np.nan)
    with np.errstate(invalid="ignore"):
        margins = np.tanh(np.where(np.isneginf(top[:, 1]), np.inf, top[:, 0] - top[:, 1]) / 2)
    return _pooled(np.minimum, margins, bounds)


def _entropy(top: NDArray) -> NDArray[np.float64]:
    """Entropy in nats of the alternatives of each token, renormalised to sum to 1."""
    z = top.astype(np.float64) - top[:, :1]
    p = np.exp(z)
    total = p.sum(axis=1)
    weighted = np.where(p > 0, p * np.where(np.isneginf(z), 0.0, z), 0.0).sum(axis=1)
    return np.log(total) - weighted / total


def _pooled(ufunc: np.ufunc, values: NDArray, bounds: NDArray) -> NDArray[np.float64]:
    filled = np.diff(bounds) > 0
    pooled = np.full(len(filled), np.nan)
    if filled.any():
        pooled[filled] = ufunc.reduceat(values, bounds[:-1][filled])
    return pooled


def option_score(
    evidence: Mapping[str, Evidence], ids: Sequence[str], options: Sequence[Sequence[str]]
) -> NDArray[np.float64]:
    """Probability of the option a draft names among those offered, at the token that decides; nan where none is named.

    The draft's text is read token by token until it fits exactly one option: its letter ("A"), or the beginning of its
    text. The stored alternatives of that token which name an option are then renormalised among each other. The text of
    an alternative is known when any draft of the run holds that token; otherwise it counts as having no probability.

    Args:
        evidence: by sample id.
        ids: samples [n], in the order of the result.
        options: texts offered to each sample, in the order shown [n]; empty: not recorded.
    """
    texts = {
        int(token): text
        for one in evidence.values()
        for token, text in zip(one.token_ids, one.token_texts, strict=True)
        if token >= 0  # servers name tokens by text only: their alternatives cannot be read here
    }
    return np.array(
        [
            _option_share(evidence[i], tuple(offered), texts) if i in evidence and len(offered) else np.nan
            for i, offered in zip(ids, options, strict=True)
        ]
    ).astype(np.float64)


def _option_share(one: Evidence, offered: tuple[str, ...], texts: Mapping[int, str]) -> float:
    before = ""
    for at, text in enumerate(one.token_texts):
        chosen = _option_named(before + text, offered)
        if chosen is not None:
            mass = np.zeros(len(offered))
            for token, logprob in zip(one.top_ids[at].tolist(), one.top_logprobs[at].tolist(), strict=True):
                named = _option_named(before + texts[token], offered) if token in texts else None
                if named is not None:
                    mass[named] += np.exp(logprob)
            return float(mass[chosen] / mass.sum()) if mass[chosen] > 0 else np.nan
        before += text
    return np.nan


@functools.lru_cache(maxsize=1 << 16)  # few texts and option lists, many alternatives
def _option_named(text: str, offered: tuple[str, ...]) -> int | None:
    """Index of the one option that `text` can only be the beginning of, by letter or by text."""
    bare = text.strip().strip("().:")
    if len(bare) == 1 and bare in LETTERS[: len(offered)]:
        return LETTERS.index(bare)
    begin = text.lstrip().casefold()
    fits = [i for i, option in enumerate(offered) if begin and option.casefold().startswith(begin)]
    return fits[0] if len(fits) == 1 else None


def router_score(yes_logprob: ArrayLike, no_logprob: ArrayLike) -> NDArray[np.float64]:
    """How sure the router is that no tool is needed: its "no" against its "yes"; nan where either is not recorded."""
    with np.errstate(invalid="ignore", over="ignore"):
        yes, no = (np.asarray(v, dtype=np.float64) for v in (yes_logprob, no_logprob))
        return 1.0 / (1.0 + np.exp(yes - no))


def combination(
    features: pd.DataFrame,
    right: ArrayLike,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Probability of being right by logistic regression on other scores, cross-fitted over seeded, grouped folds.

    Args:
        features: one score a column [n]; columns without any value are ignored, missing values are imputed by
            the training folds' mean and flagged. Rows without any value get nan.
        right: bool [n].
        groups: samples of one group are never in several folds.
        folds: how many, at least 2.
        seed: of the folds.

    Returns:
        float64 [n]; all nan when there are fewer than `folds` right or wrong groups to learn from.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # scores in [0, 1] pile up at the ends; their log-odds do not
    inside = np.clip(features.to_numpy(dtype=np.float64), 1e-6, 1 - 1e-6)
    odds = np.log(inside / (1 - inside))[:, ~np.isnan(inside).all(axis=0)]
    return cross_fitted(
        lambda _: make_pipeline(
            SimpleImputer(add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(max_iter=1000),
        ),
        odds,
        right,
        groups,
        folds,
        seed,
    )


def cross_fitted(
    make_model: Callable[[int], ClassifierMixin],
    features: NDArray[np.float64],
    right: ArrayLike,
    groups: ArrayLike | None = None,
    folds: int = 5,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Probability of being right by a model that was fitted to the other folds: float64 [n].

    Args:
        make_model: number of features -> a classifier of scikit-learn, not fitted.
        features: float64 [n, features]; rows without any value get nan.
        right: bool [n].
        groups: samples of one group are never in several folds. The folds are stratified by `right`.
        folds: how many, at least 2.
        seed: of the folds.

    Returns:
        All nan when there are fewer than `folds` right or wrong groups to learn from.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    right = as_flags("right", right)
    rows = np.flatnonzero(~np.isnan(features).all(axis=1))
    _, group_of = grouped(groups, len(right))
    table, group_of, truth = features[rows], group_of[rows], right[rows]
    predicted = np.full(len(right), np.nan)
    if min((len(np.unique(group_of[truth == value])) for value in (True, False)), default=0) < folds:
        return predicted
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(table, truth, group_of)
    for train, test in splits:
        if truth[train].all() or not truth[train].any():
            return np.full(len(right), np.nan)
        model = make_model(table.shape[1]).fit(table[train], truth[train])
        predicted[rows[test]] = model.predict_proba(table[test])[:, 1]
    return predicted
