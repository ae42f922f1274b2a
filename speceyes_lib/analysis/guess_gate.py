"""Which guesses are worth executing: scores, calibration, thresholds by value and by certificate, simpler predictors.

Choose on validation tasks, report on others. Frames of guesses are those of `tool_ledger.guess_ledger`, of a shadow
pass or any run in which guesses were executed.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..gating.calibration_samples import one_per_group
from ..gating.certificates import Certified, learn_then_test, threshold_sequence
from ..gating.gate import accepts
from ..replay.tool_playing import ToolSetting
from ..replay.tool_speculation import replay_tools
from ..replay.tool_steps import ToolSteps
from ..stats.calibration import CalibrationBins
from ..stats.ranking import auroc
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_ratio, bootstrap_statistic
from ..tool_speculation.gate import SCORES, least_probability
from ..tool_speculation.records import TaskRun

SELDOM = 5  # guesses of a tool that are too few for a threshold of its own


def compare_guess_scores(
    guesses: pd.DataFrame, scores: Sequence[str] = SCORES, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> pd.DataFrame:
    """How well each score tells guesses that come true from those that do not.

    Args:
        guesses: as `guess_ledger` gives them.
        scores: columns; those that the run does not have are left out.
        bootstrap: of whole tasks.

    Returns:
        Index: score. Columns: auroc, low, high, n, matched_pct.
    """
    rows = {}
    for score in scores:
        if score not in guesses or not len(part := guesses[guesses[score].notna()]):
            continue
        result = auroc(part[score], part["matched"], part["task_id"].to_numpy(str), bootstrap)
        rows[score] = {"auroc": result.value, "low": result.low, "high": result.high, "n": result.n}
        rows[score]["matched_pct"] = 100.0 * part["matched"].mean()
    columns = ["auroc", "low", "high", "n", "matched_pct"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("score")


@dataclass(frozen=True)
class GuessCalibration:
    """P(match | score), a monotone function fitted to validation tasks; call it with scores."""

    score: str
    at: NDArray[np.float64]
    probability: NDArray[np.float64]

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a match for each score, nan without a score."""
        values = np.interp(scores, self.at, self.probability)
        return np.where(np.isnan(scores), np.nan, values)


def calibrate_guesses(guesses: pd.DataFrame, score: str) -> GuessCalibration:
    """The isotonic fit of matches over a score.

    Args:
        guesses: of validation tasks.
        score: a column.

    Raises:
        UserError: no guess has this score.
    """
    part = guesses[guesses[score].notna()] if score in guesses else guesses[:0]
    if not len(part):
        raise UserError(f"No guess has the score {score!r}; the speculator must return log-probabilities.")
    from scipy.optimize import isotonic_regression

    at, index, count = np.unique(part[score].to_numpy(float), return_inverse=True, return_counts=True)
    share = np.bincount(index, part["matched"].to_numpy(float)) / count
    return GuessCalibration(score, at, np.asarray(isotonic_regression(share, weights=count).x))


def calibration_error(
    guesses: pd.DataFrame, calibration: GuessCalibration, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> Any:
    """Expected calibration error of a fit on other tasks, an `Estimate` in [0, 1] with an interval over tasks."""
    part = guesses[guesses[calibration.score].notna()]
    bins = CalibrationBins(
        calibration(part[calibration.score].to_numpy(float)), part["matched"].to_numpy(bool)
    )
    return bootstrap_statistic(bins.error, len(part), part["task_id"].to_numpy(str), bootstrap)


# ------------------------------------------------------------------ thresholds


def saving_s(guesses: pd.DataFrame) -> pd.Series:
    """Seconds that each guess saves if it comes true: the tool's, but no more than its head start."""
    return np.minimum(guesses["tool_s"].fillna(0.0), guesses["head_s"].clip(lower=0.0)).rename("saving_s")


def thresholds_by_value(
    guesses: pd.DataFrame, calibration: GuessCalibration, seconds_per_cost: float = 1.0
) -> dict[str, float]:
    """The threshold of each tool from which a guess is expected to pay: settings for `ToolSetting.thresholds`.

    With s the mean seconds that a hit of the tool saves, c those that a miss costs and lambda what a wasted second is
    worth, a guess pays from P(match) >= lambda c / (lambda c + s).

    Args:
        guesses: of validation tasks.
        calibration: of the same tasks.
        seconds_per_cost: lambda, seconds of waiting that one wasted second of a tool is worth.

    Returns:
        tool -> least score; infinity where no score pays. Tools with fewer than SELDOM guesses have that of all.
    """
    frame = guesses.assign(saving_s=saving_s(guesses))
    frame = frame[frame["tool_s"].notna()]
    levels = np.unique(np.concatenate([calibration.at, guesses[calibration.score].dropna().to_numpy(float)]))
    probability = calibration(levels)
    thresholds = {}
    for tool, part in frame.groupby("tool"):
        rows = part if len(part) >= SELDOM else frame
        least = least_probability(
            float(rows["saving_s"].mean()), float(rows["tool_s"].mean()), seconds_per_cost
        )
        paying = levels[(probability >= least) & (float(rows["saving_s"].mean()) > 0)]
        thresholds[str(tool)] = float(paying[0]) if len(paying) else np.inf
    return thresholds


def value_of_guesses(
    steps: ToolSteps, calibration: GuessCalibration, seconds_per_cost: float = 1.0
) -> NDArray[np.float64]:
    """Expected value of executing each guess, in seconds [n, K]: P s - (1 - P) lambda c. Gate by it with threshold 0.

    Its own tool time is used, which a run knows only afterwards: this is the best that a gate by value could do.
    """
    probability = calibration(steps.scores[calibration.score])
    tool_s = steps.latencies["recorded"][1]
    demand = np.where(steps.n_calls > 0, steps.made_s[:, 0], steps.actor_s)
    saving = np.minimum(tool_s, np.maximum(demand[:, None] - steps.finite_guess_s, 0.0))
    return np.where(
        steps.has_guess, probability * saving - (1 - probability) * seconds_per_cost * tool_s, np.nan
    )


def certified_waste(
    calibration: pd.DataFrame,
    to_decide: pd.DataFrame,
    score: str,
    target: float = 0.25,
    delta: float = 0.1,
    seed: int = 0,
) -> Certified:
    """The lowest threshold at which the share of executed guesses that are not needed is proven to be at most `target`.

    One guess of each task is used, because those of a task are not independent.

    Args:
        calibration: guesses of validation tasks.
        to_decide: guesses of the tasks that are run; only their scores are used.
        score: a column of both.
        target: share of wrong guesses among those that are executed, in (0, 1).
        delta: probability with which the bound may fail.
        seed: of the choice of guesses.

    Returns:
        The threshold in units of the score (a guess is executed where its score reaches it), infinity if nothing can be
        certified; whether it is certified, on how many guesses, and if not, why.

    Source: Learn then Test, as `gating.certificates.learn_then_test`.
    """
    part, others = (frame[frame[score].notna()] for frame in (calibration, to_decide))
    levels = np.unique(np.concatenate([part[score].to_numpy(float), others[score].to_numpy(float)]))
    unit = [
        np.searchsorted(levels, frame[score], side="right") / (len(levels) + 1) for frame in (part, others)
    ]
    chosen = one_per_group(part["task_id"].to_numpy(str), seed) if len(part) else np.empty(0, int)
    sequence = threshold_sequence(unit[1], len(chosen), target, delta)
    wrong = ~part["matched"].to_numpy(bool)[chosen]
    certified = learn_then_test(unit[0][chosen], wrong, sequence, target, delta)
    if not certified.certified:
        return replace(certified, threshold=np.inf, reason=certified.reason.replace("drafts", "guesses"))
    above = levels[accepts(np.arange(1, len(levels) + 1) / (len(levels) + 1), certified.threshold)]
    return replace(certified, threshold=float(above[0]) if len(above) else np.inf)


def gate_front(
    steps: ToolSteps, scores: Sequence[str] = SCORES, points: int = 25, **setting: Any
) -> pd.DataFrame:
    """Saving and waste over the threshold of each score, against always guessing.

    Args:
        steps: of a shadow pass.
        scores: names; those that the steps do not have are left out.
        points: thresholds per score, at even shares of the guesses.
        setting: other fields of `ToolSetting`.

    Returns:
        Columns: score, threshold (-inf: always), saving_pct and waste_pct of always guessing, executed, speedup, low,
        high.
    """
    always = replay_tools(steps, ToolSetting(**setting)).iloc[0]
    parts = []
    for score in (s for s in scores if s in steps.scores):
        values = steps.scores[score][steps.allowed & (steps.rank < setting.get("guesses", 1))]
        levels = np.unique(np.quantile(values[~np.isnan(values)], np.linspace(0, 1, points), method="higher"))
        grid = [ToolSetting(**setting | {"score": score, "threshold": float(t)}) for t in levels]
        frame = replay_tools(steps, [*grid, ToolSetting(**setting | {"score": score, "threshold": np.inf})])
        parts.append(frame.assign(score=score))
    if not parts:
        raise UserError(f"No guess has any of the scores {', '.join(scores)}.")
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.assign(
        saving_pct=100.0 * frame["saved_s"] / always["saved_s"] if always["saved_s"] else np.nan,
        waste_pct=100.0 * frame["wasted_s"] / always["wasted_s"] if always["wasted_s"] else 0.0,
    )
    return frame[["score", "threshold", "saving_pct", "waste_pct", "executed", "speedup", "low", "high"]]


def least_waste(front: pd.DataFrame, keep_pct: float = 85.0) -> pd.Series:
    """The row of a front with the least waste among those that keep this share of the saving of always guessing."""
    kept = front[front["saving_pct"] >= keep_pct - 1e-9]
    if not len(kept):
        most = front["saving_pct"].max()
        raise UserError(f"No threshold keeps {keep_pct:g} % of the saving; the most is {most:.1f} %.")
    return kept.sort_values(["waste_pct", "saving_pct"], ascending=[True, False]).iloc[0]


# ------------------------------------------------------------------ predictors without a model

History = list[tuple[str, dict[str, Any], str]]  # name, arguments and result of the calls so far
Source = Callable[[History, str], Any]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FILE = re.compile(r"[\w-]+\.[A-Za-z]\w{1,5}")


def _copy_sources() -> dict[str, Source]:
    """Places that an argument may be copied from: (calls so far, question) -> value, None where there is none."""

    def of_result(get: Callable[[str], Any]) -> Source:
        return lambda history, question: get(history[-1][2].strip()) if history else None

    return {
        "file in the question": lambda history, question: _first(_FILE, question),
        "question": lambda history, question: question,
        "last result": of_result(str),
        "its first line": of_result(lambda text: text.split("\n")[0]),
        "its last number": of_result(lambda text: (_NUMBER.findall(text) or [None])[-1]),
        "its last word": of_result(lambda text: (re.findall(r"\w+", text) or [None])[-1]),
        "its first word": of_result(lambda text: _first(re.compile(r"\w+"), text)),
        "its file": of_result(lambda text: _first(_FILE, text)),
        "last argument": lambda history, question: (
            next(reversed(history[-1][1].values()), None) if history else None
        ),
    }


def _first(pattern: re.Pattern, text: str) -> str | None:
    match = pattern.search(text)
    return match[0] if match else None


class HistoryPredictor:
    """Guesses the next call from the calls so far, without a model: most frequent next tool, copied arguments.

    The tool is the one that most often followed the same last tools in training runs (three, else two, one, none). An
    argument is copied from the place that gave it most often, or is its most frequent value.

    Source: PASTE (arXiv:2603.18897) in spirit: mined patterns of tools and of where arguments come from.
    """

    def __init__(self, runs: Iterable[TaskRun]) -> None:
        self.next_tool: dict[tuple[str, ...], Counter] = defaultdict(Counter)
        self.right: dict[tuple[str, str], Counter] = defaultdict(Counter)
        self.values: dict[tuple[str, str], Counter] = defaultdict(Counter)
        self.names: dict[str, Counter] = defaultdict(Counter)
        self.sources = _copy_sources()
        for run in runs:
            for history, call in _histories(run):
                before = _tools(history)
                for length in range(min(3, len(before)) + 1):
                    self.next_tool[before[len(before) - length :]][call.name] += 1
                self.names[call.name][tuple(call.arguments)] += 1
                for name, value in call.arguments.items():
                    self.values[call.name, name][repr(value)] += 1
                    for source, get in self.sources.items():
                        self.right[call.name, name][source] += get(history, run.question) == value

    def tool(self, history: History) -> str | None:
        """The tool that is expected next."""
        before = _tools(history)
        for length in range(min(3, len(before)), -1, -1):
            if counts := self.next_tool.get(before[len(before) - length :]):
                return max(counts, key=lambda name: (counts[name], name))
        return None

    def arguments(self, tool: str, history: History, question: str, copy: bool = True) -> dict[str, Any]:
        """The arguments that are expected; without `copy` each is its most frequent value."""
        given = self.names.get(tool)
        chosen: dict[str, Any] = {}
        for name in max(given, key=lambda n: given[n]) if given else ():
            frequent, n_frequent = self.values[tool, name].most_common(1)[0]
            source, n_source = self.right[tool, name].most_common(1)[0]
            value = self.sources[source](history, question) if copy and n_source >= n_frequent else None
            chosen[name] = ast.literal_eval(frequent) if value is None else value
        return chosen


def _tools(history: History) -> tuple[str, ...]:
    """The tools so far, after a mark for the beginning."""
    return ("", *(name for name, _, _ in history))


def _histories(run: TaskRun) -> Iterable[tuple[History, Any]]:
    """The first call of each step with the calls before it."""
    history: History = []
    for step in run.steps:
        if step.calls:
            yield list(history), step.calls[0]
        history += [(call.name, call.arguments, call.result) for call in step.calls]


def predictor_baselines(
    training: Sequence[TaskRun], test: Sequence[TaskRun], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> pd.DataFrame:
    """The speculator beside predictors without a model, on the first call of every step that has one.

    Args:
        training: runs that the predictors count in.
        test: other runs, with the guesses of a speculator.
        bootstrap: of whole tasks.

    Returns:
        Index: predictor ("last call", "frequency", "argument copying", "speculator", "speculator, any guess"). Columns:
        hit_pct, low, high, name_pct, n.
    """
    predictor = HistoryPredictor(training)
    rows: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    tasks = []
    for run in test:
        steps = [step for step in run.steps if step.calls]
        for step, (history, call) in zip(steps, _histories(run), strict=True):
            tasks.append(run.task_id)
            tool = predictor.tool(history)
            last = history[-1][:2] if history else (None, {})
            guesses = [(g.name, g.arguments) for g in step.guesses if g.ahead == 0]
            first = next(
                ((g.name, g.arguments) for g in step.guesses if g.rank == 0 and g.ahead == 0), (None, {})
            )
            frequent, copied = (
                predictor.arguments(tool or "", history, run.question, copy=copy) for copy in (False, True)
            )
            predicted = {
                "last call": [last],
                "frequency": [(tool, frequent)],
                "argument copying": [(tool, copied)],
                "speculator": [first],
                "speculator, any guess": guesses,
            }
            for name, calls in predicted.items():
                names = any(guess == call.name for guess, _ in calls)
                rows[name].append((names, any((g, a) == (call.name, call.arguments) for g, a in calls)))
    result = {}
    for name, found in rows.items():
        names, hits = np.array(found, float).T
        hit = bootstrap_ratio(hits, np.ones(len(hits)), np.array(tasks), bootstrap).times_100()
        result[name] = {
            "hit_pct": hit.value,
            "low": hit.low,
            "high": hit.high,
            "name_pct": 100.0 * names.mean(),
        }
        result[name]["n"] = len(hits)
    columns = ["hit_pct", "low", "high", "name_pct", "n"]
    return pd.DataFrame.from_dict(result, orient="index", columns=columns).rename_axis("predictor")
