"""How sure a draft is of its answer, from the top-K log-probabilities of its tokens. Numpy only.

Source: SpecEyes (arXiv:2603.23483), the answer separability of Phase III. For one generated token with raw logits z in
descending order, S = (z_1 - mean(z_2..z_K)) / (std(z_2..z_K) + EPS), with the population standard deviation. A constant
added to every logit does not change S, so log-probabilities give the same S. For tokens t = 1..n, up to but not
including the first pad or end token, with slope a:

    min       sigmoid(a * min_t S_t)                                     the paper's choice
    mean      sigmoid(a * mean_t S_t)
    bottom20  sigmoid(a * mean of the max(1, floor(0.2 n)) smallest S_t)
    log       exp(mean_t log p_t), p_t the largest probability at t      independent of K and a

Where the formula has no finite value:

- A masked alternative (-inf, as left by constrained decoding) does not count: S is the formula over the unmasked ones
  among the top K. One unmasked alternative has no spread, so S is its gap over EPS, as for K = 2.
- A token whose alternatives are all masked was forced: S = FORCED, which never decides `min`.
- A NaN among the top K, or an infinite highest entry, makes S nan, and with it every score that has to read it.
- An answer without tokens has no score: nan.

S is blind to ties: with m equal top logits and the rest far below, it depends on m and K alone (m = 2, K = 64: 0.991).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UserError, nearest

PAPER_SCORES = ("min", "mean", "bottom20", "log")
DEFAULT_K = 64
DEFAULT_SLOPE = 0.6
EPS = 1e-6
FORCED = 1.0 / EPS  # the formula for a single alternative one nat below
_CHUNK_TOKENS = 2_048  # a float64 working copy that stays in the cache: 2 MiB at 128 stored values
_LOGPROB_SLACK = 1e-2  # half-precision log-probabilities may round to slightly above 0


def token_separability(top_logprobs: ArrayLike, k: int = DEFAULT_K) -> NDArray[np.float64]:
    """Separability S of every token.

    Args:
        top_logprobs: [tokens, K_stored] log-probabilities or logits, each row in descending order; any
            float dtype, computed in float64.
        k: how many of the highest entries count, the chosen one included; 2 <= k <= K_stored.

    Returns:
        float64 [tokens], >= 0, or nan as the module's rules say.

    Raises:
        UserError: k is out of range, or the array is not two-dimensional, numeric and sorted.
    """
    return separability_profile(top_logprobs, (k,))[:, 0]


def score_answer(
    top_logprobs: ArrayLike, mode: str = "min", k: int = DEFAULT_K, slope: float = DEFAULT_SLOPE
) -> float:
    """Confidence of one answer in [0, 1]; nan for an empty answer or one that cannot be scored.

    Arguments and errors as `score_grid`, for one answer [tokens, K_stored] and one mode.
    """
    top = _matrix(top_logprobs)
    return float(score_grid(top, (0, len(top)), (k,), (mode,), slope)[mode][0, 0])


def deciding_token(top_logprobs: ArrayLike, k: int = DEFAULT_K) -> int | None:
    """Index of the first token with the smallest separability, or None where there is no score."""
    separability = token_separability(top_logprobs, k)
    if not len(separability) or not np.isfinite(separability).all():
        return None
    return int(separability.argmin())


def separability_profile(top_logprobs: ArrayLike, ks: Sequence[int]) -> NDArray[np.float64]:
    """Separability of every token for several K, float64 [tokens, len(ks)], at the cost of the largest K alone.

    Args:
        top_logprobs: [tokens, K_stored] as in `token_separability`.
        ks: the K to evaluate, in any order; the columns of the result follow it.

    Raises:
        UserError: as `token_separability`.
    """
    top = _matrix(top_logprobs)
    wanted = _checked_ks(ks, top)
    ascending, column_of = np.unique(wanted, return_inverse=True)
    profile = np.empty((len(top), len(ascending)))
    for start in range(0, len(top), _CHUNK_TOKENS):
        chunk = top[start : start + _CHUNK_TOKENS]
        _require_sorted(chunk, start)
        profile[start : start + len(chunk)] = _separability(chunk, ascending.tolist())
    return profile[:, column_of]


def score_grid(
    top_logprobs: ArrayLike,
    offsets: ArrayLike,
    ks: Sequence[int] = (DEFAULT_K,),
    modes: Sequence[str] = PAPER_SCORES,
    slope: float = DEFAULT_SLOPE,
) -> dict[str, NDArray[np.float64]]:
    """Score every answer of a run for many K and modes at once.

    Args:
        top_logprobs: [all tokens, K_stored], the answers one after the other (see `flatten_answers`).
        offsets: integers [answers + 1]; answer i owns the rows offsets[i] up to offsets[i + 1].
        ks: the K to evaluate.
        modes: names from `PAPER_SCORES`.
        slope: the a of the formulas, positive.

    Returns:
        For each mode, float64 [answers, len(ks)] in [0, 1] or nan. The columns of `log` are all equal.

    Raises:
        UserError: an unknown mode, a K out of range, a slope that is not positive, offsets that do not
            cover the rows, rows that are not sorted, or `log` of values that are no log-probabilities.
    """
    check_slope(slope)
    pooled = pooled_grid(top_logprobs, offsets, ks, modes)
    return {mode: confidence_of(values, mode, slope) for mode, values in pooled.items()}


def pooled_grid(
    top_logprobs: ArrayLike,
    offsets: ArrayLike,
    ks: Sequence[int] = (DEFAULT_K,),
    modes: Sequence[str] = PAPER_SCORES,
) -> dict[str, NDArray[np.float64]]:
    """The separabilities of every answer, pooled, before the sigmoid; `confidence_of` gives the scores of any slope.

    Arguments, shape and errors as `score_grid`, without the slope. `log` has no sigmoid and is complete.
    """
    top = _matrix(top_logprobs)
    bounds = _checked_offsets(offsets, len(top))
    for mode in modes:
        if mode not in PAPER_SCORES:
            raise UserError(
                f"Unknown score {mode!r}{nearest(mode, PAPER_SCORES)}; choose one of {', '.join(PAPER_SCORES)}."
            )
    wanted = _checked_ks(ks, top)

    lengths = np.diff(bounds)
    filled = lengths > 0  # reduceat cannot express an empty answer; these keep their nan
    grid = {mode: np.full((len(lengths), len(wanted)), np.nan) for mode in modes}
    if not filled.any():
        return grid
    starts, lengths = bounds[:-1][filled], lengths[filled]
    if set(modes) != {"log"}:
        separability = separability_profile(top, wanted)
    for mode in modes:
        if mode == "log":
            grid[mode][filled] = _geometric_mean(top[:, 0], starts, lengths)[:, None]
        else:
            grid[mode][filled] = _POOLING[mode](separability, starts, lengths)
    return grid


def confidence_of(pooled: NDArray, mode: str, slope: float = DEFAULT_SLOPE) -> NDArray[np.float64]:
    """The scores in [0, 1] of what `pooled_grid` gives for a mode; nan stays nan."""
    return pooled if mode == "log" else 1.0 / (1.0 + np.exp(-slope * pooled))  # pooled >= 0: no overflow


def check_slope(slope: float) -> None:
    """Raise UserError unless the slope is a positive number."""
    if not (np.isfinite(slope) and slope > 0):
        raise UserError(f"slope must be a positive number, got {slope!r}; the paper uses {DEFAULT_SLOPE}.")


def flatten_answers(answers: Iterable[ArrayLike]) -> tuple[NDArray, NDArray[np.int64]]:
    """Concatenate [tokens, K_stored] arrays of several answers for `score_grid`.

    Returns:
        The rows [all tokens, K_stored] in the dtype given, and offsets int64 [answers + 1].

    Raises:
        UserError: the answers store different numbers of log-probabilities per token.
    """
    arrays = [_matrix(answer) for answer in answers]
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
    filled = [array for array in arrays if len(array)]
    widths = sorted({array.shape[1] for array in filled})
    if len(widths) > 1:
        raise UserError(
            f"The answers store between {widths[0]} and {widths[-1]} log-probabilities per token; score "
            f"runs of different k_store apart, or keep the first {widths[0]} of each."
        )
    return (np.concatenate(filled) if filled else np.empty((0, 0))), offsets


def _separability(top: NDArray, ks: list[int]) -> NDArray[np.float64]:
    """S of [tokens, >= ks[-1]] sorted rows for ascending ks, float64 [tokens, len(ks)].

    The sums are over the drops below the second logit, z_j - z_2. Its drop is 0, so mean^2 <= (K - 1) * variance: "mean
    of squares minus square of mean" loses at most a factor K of precision, and ties give a deviation of exactly 0.
    """
    z = top[:, : ks[-1]].astype(np.float64)
    highest, others = z[:, 0], z[:, 1:]
    masked = np.isneginf(others)
    n_open = others.shape[1] - masked.sum(axis=1)  # sorted rows: the open alternatives come first
    result = np.empty((len(z), len(ks)))
    total, squares, done = np.zeros(len(z)), np.zeros(len(z)), 0
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes nan below
        gap = highest - others[:, 0]
        drops = others - others[:, :1]
        drops[masked] = 0.0
        for column, k in enumerate(ks):
            part = drops[:, done : k - 1]
            done = k - 1
            total += part.sum(axis=1)
            squares += np.einsum("tj,tj->t", part, part)
            n = np.minimum(n_open, k - 1)
            mean = total / np.maximum(n, 1)
            variance = squares / np.maximum(n, 1) - mean**2
            score = (gap - mean) / (np.sqrt(np.maximum(variance, 0.0)) + EPS)
            result[:, column] = np.where(n > 0, score, FORCED)
    result[~(np.isfinite(result) & np.isfinite(highest)[:, None])] = np.nan
    return result


def _mean_of_lowest_fifth(separability: NDArray, starts: NDArray, lengths: NDArray) -> NDArray[np.float64]:
    owner = np.repeat(np.arange(len(lengths)), lengths)
    rank = np.arange(len(owner)) - starts[owner]
    take = np.maximum(1, lengths // 5)
    pooled = np.empty((len(lengths), separability.shape[1]))
    for column, values in enumerate(separability.T):
        ascending = values[np.lexsort((values, owner))]  # within each answer
        chosen = np.where(rank < take[owner], ascending, 0.0)
        pooled[:, column] = np.add.reduceat(chosen, starts) / take
    # Sorting puts nan last, out of the lowest fifth; an unreadable token still voids the answer.
    pooled[np.logical_or.reduceat(np.isnan(separability), starts, axis=0)] = np.nan
    return pooled


_POOLING = {
    "min": lambda separability, starts, _: np.minimum.reduceat(
        separability, starts, axis=0
    ),  # propagates nan
    "mean": lambda separability, starts, n: np.add.reduceat(separability, starts, axis=0) / n[:, None],
    "bottom20": _mean_of_lowest_fifth,
}


def _geometric_mean(logprobs: NDArray, starts: NDArray, lengths: NDArray) -> NDArray[np.float64]:
    best = logprobs.astype(np.float64)
    best[~np.isfinite(best)] = np.nan
    above_zero = np.flatnonzero(best > _LOGPROB_SLACK)
    if len(above_zero):
        raise UserError(
            f"Mode 'log' needs log-probabilities (at most 0), but token {above_zero[0]} has "
            f"{best[above_zero[0]]:.3g}; subtract the log-sum-exp of the full vocabulary from the logits."
        )
    return np.exp(np.minimum(np.add.reduceat(best, starts) / lengths, 0.0))


def _matrix(top_logprobs: ArrayLike) -> NDArray:
    """The input as a floating [tokens, K_stored] array; an empty list is an answer of no tokens."""
    try:
        array = np.asarray(top_logprobs)
        if not np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"top_logprobs must be a numeric [tokens, K] array with the same K for every token: {error}."
        ) from error
    if array.size == 0 and array.ndim <= 2:
        return array.reshape(0, 0) if array.ndim < 2 or len(array) == 0 else array
    if array.ndim != 2:
        raise UserError(
            f"top_logprobs must have the shape [tokens, K], got {list(array.shape)}; "
            "wrap the log-probabilities of a single token in a list."
        )
    return array


def _checked_ks(ks: Sequence[int], top: NDArray) -> list[int]:
    try:
        wanted = [operator.index(k) for k in ks]
    except TypeError as error:
        raise UserError(f"K must be a whole number, got {list(ks)!r}.") from error
    if not wanted:
        raise UserError("No K given; name at least one, for instance 64.")
    if min(wanted) < 2:
        raise UserError(f"k={min(wanted)} leaves no alternative to compare with; use k >= 2.")
    if len(top) and max(wanted) > top.shape[1]:
        raise UserError(
            f"k={max(wanted)} is too large, only {top.shape[1]} log-probabilities are stored per token; "
            f"use k <= {top.shape[1]}, or run the draft again with k_store >= {max(wanted)}."
        )
    return wanted


def _checked_offsets(offsets: ArrayLike, n_tokens: int) -> NDArray[np.int64]:
    bounds = np.asarray(offsets)
    if bounds.ndim != 1 or not len(bounds) or not np.issubdtype(bounds.dtype, np.integer):
        raise UserError(
            f"offsets must be whole numbers [answers + 1], got {bounds.dtype} {list(bounds.shape)}."
        )
    if bounds[0] != 0 or bounds[-1] != n_tokens or (np.diff(bounds) < 0).any():
        raise UserError(
            f"offsets must rise from 0 to the number of rows, {n_tokens}; got {bounds[0]} to {bounds[-1]}"
            f"{' with a step back' if (np.diff(bounds) < 0).any() else ''}."
        )
    return bounds.astype(np.int64)


def _require_sorted(chunk: NDArray, first_token: int) -> None:
    rising = np.argwhere(chunk[:, 1:] > chunk[:, :-1])
    if len(rising):
        token, column = rising[0]
        raise UserError(
            f"top_logprobs must be sorted in descending order, but at token {first_token + token} entry "
            f"{column + 1} ({chunk[token, column + 1]:.4g}) is above entry {column} "
            f"({chunk[token, column]:.4g}); sort each row first."
        )
