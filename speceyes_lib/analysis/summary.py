"""The summary of a run: accuracy, coverage and speedup of every arm, per split and on average."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ..gating.gate import accepts, gated_right
from ..gating.separability import PAPER_SCORES
from ..gating.threshold import OperatingPoint, read_operating_point
from ..gating.threshold import choose_threshold as gate_rule
from ..params import GateAnalysisParams, StageParams
from ..paths import resolve
from ..runs import recorded_run
from ..runs.provenance import environment, folder_hash, text_hash
from ..stats import proportions, ranking
from ..stats.intervals import Estimate, finite_or_none, proportion
from ..stats.paired import PairedTest, mean_speedup, paired_test, speedup
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap
from ..tasks.registry import HARD_BELOW
from .clock import with_drift
from .sample_frame import ARM_PARTS, arm, arms_of, right_of, routed

CLOCK = (
    "wall_s is the sum over samples of the busy clock charged to each: picture read and decoded, its share of the "
    "batched router and draft calls, its agent turns and its tools. Model load and warm-up are not included. "
    "baseline, gated and specreason run the agent one sample at a time and encode everything anew on every turn (the "
    "paper's setting); collect and the *_batched arms run many at a time and compute on a turn only what is new. "
    "draft_only is stage 01 as it ran; router_only is computed from what the other arms measured, not run; "
    "baseline_batched is the instrumented pass without its router, unless it was run as an arm of its own."
)
# an arm's speedup is over this one: the same agent setting, without the gate
REFERENCE = {"baseline_batched": "baseline", "gated_batched": "baseline_batched"}
REFERENCE |= dict.fromkeys(("draft_only", "gated", "router_only", "specreason"), "baseline")
SUMMARY_ARMS = ("baseline", "draft_only", "gated", "router_only", "baseline_batched", "gated_batched")
EXTRA_ARMS = ("specreason",)  # shown where it ran, and not missing where it did not
COMPARISONS = (
    ("gated", "baseline"),
    ("gated", "router_only"),
    ("gated_batched", "baseline_batched"),
    ("draft_only", "baseline"),
    ("specreason", "baseline"),
)


def summarise(
    frame: pd.DataFrame,
    *,
    run: str = "",
    gate: Mapping | None = None,
    clock: Mapping | None = None,
    hard_below: float = HARD_BELOW,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> dict:
    """The numbers of a run, ready for JSON: the content of `summary.json`.

    `arms` -> arm -> `pooled`, `average` (unweighted over splits) and `splits` -> task, each with `accuracy_pct`
    and its 95 % interval, `n`, `errors`, `unparsed`, `undecided`, `wall_s`, and against `REFERENCE` the `speedup`;
    arms with a gate or router also `alpha`, `beta` (fractions), `accepted_pct` and `decided`, which is equal for equal
    decisions. `comparisons` are paired on the same samples. An arm that did not run is absent and named in `missing`.
    `gate` (threshold, rule) is passed through, and so is `clock` as `clock_check` (`clock.clock_check`). With an A/A
    line the intervals of speedups contain the drift of the clock.
    """
    arms = arms_of(frame)
    present = [name for name in (*SUMMARY_ARMS, *EXTRA_ARMS) if name in arms]
    summary = {
        "run": run,
        "protocol": protocol_of(frame),
        "clock": CLOCK,
        "clock_check": dict(clock or {}),
        "intervals": "95 %, clustered by question (HR-Bench) and image (POPE) where these repeat, else Wilson",
        "n": len(frame),
        "gate": dict(gate or {}),
        "arms": {name: arm_summary(frame, name, bootstrap) for name in present},
        "missing": [name for name in SUMMARY_ARMS if name not in present],
        "comparisons": {
            f"{a}_vs_{b}": _by_split(frame, partial(_compared, a=a, b=b, bootstrap=bootstrap))
            for a, b in COMPARISONS
            if a in arms and b in arms
        },
    }
    if "collect" in arms:
        summary["auroc"] = auroc_by_score(frame, bootstrap=bootstrap)
        summary["first_look"] = without_tool(frame, hard_below, bootstrap)
    return summary


def protocol_of(frame: pd.DataFrame) -> str:
    """The protocol of the frame's verdicts."""
    return frame.attrs.get("protocol", "strict")


def groups_of(part: pd.DataFrame) -> np.ndarray | None:
    """Groups to cluster by, or None where every sample is its own group (then Wilson's interval applies)."""
    return part["group"].to_numpy() if part["group"].duplicated().any() else None


def _by_split(frame: pd.DataFrame, measure: Callable[[pd.DataFrame], dict]) -> dict:
    splits = {task: measure(part) for task, part in frame.groupby("task", sort=False)}
    return {"pooled": measure(frame), "splits": splits}


def arm_summary(
    frame: pd.DataFrame, name: str, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, reference: str | None = None
) -> dict:
    """The entry of one arm in `summarise`; `reference`: the arm that its speedup is over, None: of `REFERENCE`."""
    reference = reference or REFERENCE.get(name)
    entries = _by_split(frame, lambda part: _measured(part, name, reference, bootstrap))
    splits, pooled = entries["splits"].values(), entries["pooled"]
    # the unweighted mean of the splits' accuracies; whole groups of all splits are drawn for its interval
    part = _counted(arm(frame, name), protocol_of(frame))
    weight = len(part) / part.groupby("task")["id"].transform("size") / max(part["task"].nunique(), 1)
    mean = proportions.mean(100.0 * part["right"] * weight, groups_of(part), bootstrap)
    totals = {key: sum(split[key] for split in splits) for key in ("n", "errors", "unparsed", "undecided")}
    entries["average"] = _estimate("accuracy", mean) | totals | {"wall_s": pooled["wall_s"]}
    if "speedup" in pooled:
        entries["average"] |= _average_speedup(frame, name, reference, bootstrap, splits)
    if "decided" in pooled:
        entries["average"]["decided"] = pooled["decided"]
    return entries


def _average_speedup(
    frame: pd.DataFrame, name: str, reference: str, bootstrap: Bootstrap, splits: Collection[Mapping]
) -> dict:
    both = _paired(frame, name, reference)
    if len(both) and both[["wall_s_a", "wall_s_b"]].notna().all(axis=None):
        mean = mean_speedup(both["wall_s_b"], both["wall_s_a"], both["task"], groups_of(both), bootstrap)
        mean = with_drift(mean, frame.attrs.get("aa"))
        value, low, high = (finite_or_none(v) for v in (mean.value, mean.low, mean.high))
    else:
        speedups = [split["speedup"] for split in splits]
        value = None if not speedups or None in speedups else float(np.mean(speedups))
        low = high = None
    return {"speedup": value, "speedup_low": low, "speedup_high": high}


def _counted(part: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows that count in accuracy: all under `strict`; `paper` drops errors, as the original does."""
    return part[part["verdict"] != "error"] if protocol == "paper" else part


def _measured(frame: pd.DataFrame, name: str, reference: str | None, bootstrap: Bootstrap) -> dict:
    part = arm(frame, name)
    counted = _counted(part, protocol_of(frame))
    share = proportions.accuracy(counted["right"], groups_of(counted), bootstrap)
    entry = {
        **_estimate("accuracy", share),
        "n": share.n,
        "errors": int((part["verdict"] == "error").sum()),
        "unparsed": int((part["verdict"] == "unparsed").sum()),
        "undecided": int((part["verdict"] == "undecided").sum()),
        "wall_s": _wall_s(frame, name),
    }
    if reference in arms_of(frame):
        entry |= _speedup(frame, name, reference, bootstrap)
    if name.startswith(("gated", "router")):
        n_accepted, n_routed = (int((part["decision"] == d).sum()) for d in ("accepted", "routed"))
        shares = proportions.funnel_shares(n_accepted, len(part) - n_routed, len(part), proportion)
        entry |= {
            "alpha": finite_or_none(shares.alpha.value / 100),
            "beta": finite_or_none(shares.beta.value / 100),
            **_estimate("accepted", shares.accepted),
            "decided": text_hash(sorted(part.loc[part["decision"] == "accepted", "id"]))[:12],
        }
    return entry


def _compared(frame: pd.DataFrame, a: str, b: str, bootstrap: Bootstrap) -> dict:
    return compare(frame, a, b, bootstrap).as_dict() | _speedup(frame, a, b, bootstrap)


def _speedup(frame: pd.DataFrame, name: str, reference: str, bootstrap: Bootstrap) -> dict:
    both = _paired(frame, name, reference)
    if both[["wall_s_a", "wall_s_b"]].notna().all(axis=None):
        ratio = speedup(both["wall_s_b"], both["wall_s_a"], groups_of(both), bootstrap)
        ratio = with_drift(ratio, frame.attrs.get("aa"))
        value, low, high = (finite_or_none(v) for v in (ratio.value, ratio.low, ratio.high))
    else:  # totals have a ratio, seconds per sample, and no interval
        run_s, reference_s = _wall_s(frame, name), _wall_s(frame, reference)
        value = low = high = None
        if run_s and reference_s:
            value = (reference_s / len(arm(frame, reference))) / (run_s / len(arm(frame, name)))
    return {"speedup": value, "speedup_low": low, "speedup_high": high, "speedup_over": reference}


def _wall_s(frame: pd.DataFrame, name: str) -> float | None:
    """Seconds of an arm over a frame of whole tasks: the sum of its samples, else the totals of its tasks."""
    part = arm(frame, name)
    total_s = float(part["wall_s"].sum(skipna=False))
    if math.isfinite(total_s):
        return total_s
    of_tasks = [frame.attrs.get("total_s", {}).get(f"{name} {task}") for task in part["task"].unique()]
    return None if None in of_tasks else float(sum(of_tasks))


def _paired(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Samples that both arms ran; the parts of the arms with the suffixes `_a` and `_b`."""
    first, second = (arm(frame, name) for name in (a, b))
    parts = list(ARM_PARTS)
    columns = [first[["id", "task", "group"]], first[parts].add_suffix("_a"), second[parts].add_suffix("_b")]
    return pd.concat(columns, axis=1, join="inner")


def compare(frame: pd.DataFrame, a: str, b: str, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> PairedTest:
    """Is arm `a` more often right than arm `b`? Paired on the samples that both ran (and, under `paper`, kept)."""
    both = _paired(frame, a, b)
    if protocol_of(frame) == "paper":
        both = both[(both["verdict_a"] != "error") & (both["verdict_b"] != "error")]
    return paired_test(both["right_a"], both["right_b"], groups_of(both), bootstrap)


def choose_threshold(frame: pd.DataFrame, score: str = "min", delta_pp: float = 0.0) -> OperatingPoint:
    """`gating.choose_threshold` on the instrumented pass: every sample it ran, failed ones included as wrong."""
    part = frame[frame["collect_decision"].notna()]
    draft, agent = right_of(part, "draft"), right_of(part, "agent")
    return gate_rule(part[f"score_{score}"], draft, agent, routed(part), delta_pp)


def funnel_at(frame: pd.DataFrame, threshold: float, score: str = "min") -> tuple[Estimate, Estimate]:
    """(accuracy, accepted share) that the funnel would have at a threshold, computed from `collect`."""
    part = frame[frame["collect_decision"].notna()]
    values, to_agent, groups = part[f"score_{score}"], routed(part), groups_of(part)
    right = gated_right(values, right_of(part, "draft"), right_of(part, "agent"), threshold, to_agent)
    accepted = accepts(values, threshold) & ~to_agent.to_numpy()
    return proportions.accuracy(right, groups), proportions.accuracy(accepted, groups)


def auroc_by_score(
    frame: pd.DataFrame, scores: Sequence[str] = PAPER_SCORES, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> dict:
    """Score -> AUROC of the draft's score for its correctness: pooled, per split, and after the router."""
    drafted = frame[frame["draft_verdict"].notna()]

    def measured(part: pd.DataFrame, score: str) -> dict:
        values, right = part[f"score_{score}"], right_of(part, "draft")
        return ranking.auroc(values, right, groups_of(part), bootstrap).as_dict()

    return {
        score: _by_split(drafted, lambda part, score=score: measured(part, score))
        | {"after_router": measured(drafted[~routed(drafted)], score)}
        for score in scores
    }


def without_tool(
    frame: pd.DataFrame, hard_below: float = HARD_BELOW, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> dict:
    """The agent with its tool against its own forced first look, on hard, easy and all samples.

    Hard: `target_fraction` below `hard_below`. Samples of unknown size are in `all` only. Where no first look was
    taken, or no size is known, n is 0.
    """
    looked = frame[frame["first_look_verdict"].notna() & frame["agent_verdict"].notna()]
    size = looked["target_fraction"]
    entries: dict = {"hard_below": hard_below, "n_size_unknown": int(size.isna().sum())}
    parts = {"hard": looked[size < hard_below], "easy": looked[size >= hard_below], "all": looked}
    for name, part in parts.items():
        with_tool, without, groups = right_of(part, "agent"), right_of(part, "first_look"), groups_of(part)
        entries[name] = {
            "n": len(part),
            **_estimate("zoom", proportions.accuracy(with_tool, groups, bootstrap)),
            **_estimate("first_look", proportions.accuracy(without, groups, bootstrap)),
            "gain": paired_test(with_tool, without, groups, bootstrap).as_dict(),
        }
    return entries


def _estimate(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {
        f"{name}_pct": finite_or_none(estimate.value),
        f"{name}_low_pct": finite_or_none(estimate.low),
        f"{name}_high_pct": finite_or_none(estimate.high),
    }


def recorded_by(params: StageParams) -> dict[str, str]:
    """The commit that recorded the run of a stage, or the hash of the reported numbers where it shows only these."""
    if getattr(params, "source", "run") == "reported":
        return {"paper_sha256": folder_hash(resolve("data/paper"))}
    arms = getattr(params, "arms", None) or [getattr(params, "arm", "collect")]
    recorded, stage = recorded_run.open(params.run, tasks=params.tasks[:1]), f"02_{arms[0]}"
    # notebooks that measure something themselves have no such stage: their numbers are as old as their figures
    if not recorded.finished(stage):
        return {"commit": environment().get("commit", "")}
    return {"commit": recorded.manifest(stage, recorded.tasks[0]).environment.get("commit", "")}


def operating_point_in_use(params: GateAnalysisParams, here: OperatingPoint) -> dict:
    """The point of `threshold_from`, or the one chosen on this run where that is empty."""
    if params.threshold_from:
        return read_operating_point(params.threshold_from)
    return {**here.as_dict(), "chosen_on": {"run": params.run}}
