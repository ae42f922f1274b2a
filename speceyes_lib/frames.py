"""One tidy frame per run: a row per sample, with everything the analysis asks about it. Then its summary.

The frame joins what stages 02 and 03 stored. Columns of the sample and of the instrumented pass (`collect`):

======================== ============================================================================
`id task benchmark split` where the sample comes from; the index is the position in the order of the paper's splits
`group question kind`     the independent unit (HR-Bench question, POPE image), its text, its category
`options`                 the texts to choose from, as shown (empty in runs judged before they were kept)
`target_fraction`         side of what the question is about / side of the image (NaN: unknown)
`draft_answer …_right`    the small model's answer, its verdict, and whether that is "right"
`score_min …_mean …`      the draft's confidence, one column per mode (NaN: none, e.g. an empty answer)
`router_verdict`          "yes" (a tool would help: to the agent), "no" (to the draft), or None
`router_yes_logprob _no_` how probable either word was (NaN: not recorded)
`agent_answer …_right`    the agent's answer
`n_turns zoomed`          how many turns it took, whether one of them was a tool call that gave a picture
`first_look_right`        the agent forbidden to zoom
======================== ============================================================================

and, for every arm that ran (`collect`, `baseline`, `gated`, …) and every arm computed from `collect`
(`draft_only`, `router_only`), the columns `<arm>_<part>` for the parts in `ARM_PARTS`. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from . import metrics
from .confidence import MODES
from .errors import StageError
from .gate import OperatingPoint, accepts, gated_right
from .gate import choose_threshold as gate_rule
from .judging import JudgedRecord
from .paper import SPLITS
from .records import AgentRecord, RouterRecord, VerdictValue
from .store import RECORDS, is_finished, read_manifest, read_stage

PHASES = ("decode_s", "router_s", "draft_s", "agent_s", "tool_s")
ARM_PARTS = ("decision", "answer", "verdict", "right", "wall_s", *PHASES)
COMPUTED_ARMS = ("draft_only", "router_only", "baseline_batched")


def assemble(
    arms: Mapping[str, Mapping[str, AgentRecord]], judged: Mapping[str, Mapping[str, JudgedRecord]]
) -> pd.DataFrame:
    """Join the records of the arms with their verdicts: see the module's table of columns.

    `arms` and `judged` map arm -> id -> record. An arm that has not run a sample has missing values there.
    The columns of the instrumented pass come from `collect` and are absent without it.
    """
    facts: dict[str, JudgedRecord] = {}
    for records in judged.values():
        facts |= records
    ids = sorted(facts, key=_place)
    index = {id_: i for i, id_ in enumerate(ids)}
    frame = pd.DataFrame({"id": ids})
    parts = frame["id"].str.split("/", n=2, expand=True).reindex(columns=range(3))
    frame["task"] = parts[0] + "/" + parts[1]
    frame["benchmark"], frame["split"] = parts[0], parts[1]
    for column in ("group", "question", "kind", "options"):
        frame[column] = [getattr(facts[i], column) for i in ids]
    frame["target_fraction"] = np.array(
        [np.nan if (f := facts[i].target_fraction) is None else f for i in ids], dtype="float64"
    )
    columns = [frame]
    if "collect" in arms:
        columns.append(_aligned(_instrumented(arms["collect"], judged["collect"]), index))
    for arm, records in arms.items():
        columns.append(_aligned(_outcomes(records, judged[arm]), index).add_prefix(f"{arm}_"))
    frame = pd.concat(columns, axis=1)
    return _with_computed_arms(frame) if "collect" in arms else frame


def _place(id_: str) -> tuple[int, str]:
    """Samples stand in the order of the paper's splits (others after them), then by id."""
    task = id_.rsplit("/", 1)[0]
    return SPLITS.index(task) if task in SPLITS else len(SPLITS), id_


def _aligned(part: pd.DataFrame, index: Mapping[str, int]) -> pd.DataFrame:
    return part.set_axis(part["id"].map(index)).drop(columns="id").reindex(range(len(index)))


def _verdict(judged: JudgedRecord, source: str) -> VerdictValue | None:
    return next((v.verdict for v in judged.verdicts if v.source == source), None)


def _right(verdicts: pd.Series) -> pd.Series:
    """Nullable truth: missing where nothing was judged. Unparsed, undecided and failed are not right."""
    return (verdicts == "right").astype("boolean").mask(verdicts.isna())


def _outcomes(records: Mapping[str, AgentRecord], judged: Mapping[str, JudgedRecord]) -> pd.DataFrame:
    """One arm: what was decided, whether it is right, what it cost (a stage-01 draft is not charged twice)."""
    rows = []
    for id_, record in records.items():
        charged_draft = record.draft if record.run_mode == "gated" else None
        times = {
            "wall_s": record.wall_s,
            "decode_s": record.decode_s,
            "router_s": record.router.router_s if record.router else 0.0,
            "draft_s": charged_draft.draft_s if charged_draft else 0.0,
            "agent_s": record.trajectory.agent_s if record.trajectory else 0.0,
            "tool_s": record.tool_s,
        }
        row = {
            "id": id_,
            "decision": record.decision,
            "answer": record.answer,
            "verdict": _verdict(judged[id_], "final"),
        }
        rows.append(row | (times if record.timed else dict.fromkeys(times, np.nan)))
    frame = pd.DataFrame(rows, columns=["id", *(p for p in ARM_PARTS if p != "right")])
    frame["right"] = _right(frame["verdict"])
    return frame


def _instrumented(records: Mapping[str, AgentRecord], judged: Mapping[str, JudgedRecord]) -> pd.DataFrame:
    rows = []
    for id_, record in records.items():
        draft, path = record.draft, record.trajectory
        scores = (draft.scores if draft else None) or {}
        rows.append(
            {
                "id": id_,
                "draft_answer": draft.answer if draft else None,
                "draft_verdict": _verdict(judged[id_], "draft"),
                "draft_s": draft.draft_s if draft and draft.timed else np.nan,
                "draft_decode_s": draft.decode_s if draft and draft.timed else np.nan,
                **{f"score_{mode}": scores.get(mode, np.nan) for mode in MODES},
                "router_verdict": record.router.verdict if record.router else None,
                **{f"router_{word}_logprob": _logprob(record.router, word) for word in ("yes", "no")},
                "agent_answer": path.answer if path else None,
                "agent_verdict": _verdict(judged[id_], "agent"),
                "n_turns": len(path.turns) if path else 0,
                "zoomed": any(t.crop_px is not None for t in path.turns) if path else False,
                "first_look_verdict": _verdict(judged[id_], "first_look"),
            }
        )
    frame = pd.DataFrame(rows)
    for who in ("draft", "agent", "first_look"):
        frame[f"{who}_right"] = _right(frame[f"{who}_verdict"])
    return frame


def _logprob(router: RouterRecord | None, word: str) -> float:
    value = getattr(router, f"{word}_logprob", None)
    return np.nan if value is None else value


def _with_computed_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the arms that the instrumented pass answers without running anything again.

    `draft_only`: stage 01 as it ran. `router_only`: Phase I decides alone, every draft it lets through is taken.
    It is charged decode + router + (draft or agent with its tools), as measured in `collect` and stage 01; the
    agent as measured in `baseline` where that ran, because there, as in `gated`, agents run one at a time.
    `baseline_batched`, unless it was run as an arm of its own: the agents of `collect`, which advance together
    on every sample, without its router.
    """
    agent = "baseline" if "baseline_decision" in frame else "collect"
    ran = frame["collect_decision"].notna()
    to_draft = ~routed(frame)
    zero = pd.Series(0.0, index=frame.index)
    draft_only = {
        "decision": pd.Series("accepted", index=frame.index),
        "answer": frame["draft_answer"],
        "verdict": frame["draft_verdict"],
        "decode_s": frame["draft_decode_s"],
        "router_s": zero,
        "draft_s": frame["draft_s"],
        "agent_s": zero,
        "tool_s": zero,
    }
    router_only = {
        "decision": pd.Series(np.where(to_draft, "accepted", "routed"), index=frame.index),
        "answer": frame["draft_answer"].where(to_draft, frame["agent_answer"]),
        "verdict": frame["draft_verdict"].where(to_draft, frame["collect_verdict"]),  # a failed sample too
        "decode_s": frame["collect_decode_s"],
        "router_s": frame["collect_router_s"],
        "draft_s": frame["draft_s"].where(to_draft, 0.0),
        "agent_s": frame[f"{agent}_agent_s"].mask(to_draft, 0.0),
        "tool_s": frame[f"{agent}_tool_s"].mask(to_draft, 0.0),
    }
    baseline_batched = {
        "decision": pd.Series("baseline", index=frame.index),
        "answer": frame["agent_answer"],
        "verdict": frame["collect_verdict"],
        "decode_s": frame["collect_decode_s"],
        "router_s": zero,
        "draft_s": zero,
        "agent_s": frame["collect_agent_s"],
        "tool_s": frame["collect_tool_s"],
    }
    computed = zip(COMPUTED_ARMS, (draft_only, router_only, baseline_batched), strict=True)
    for arm, parts in computed:
        lacks = {
            "router_only": frame["router_verdict"].isna().all(),
            "baseline_batched": frame["collect_wall_s"].isna().all(),  # nobody tells what was batched
        }
        if f"{arm}_decision" in frame or lacks.get(arm):
            continue
        part = pd.DataFrame(parts).where(ran)
        part["right"] = _right(part["verdict"])
        part["wall_s"] = part[list(PHASES)].sum(axis=1, min_count=len(PHASES))
        frame = pd.concat([frame, part[list(ARM_PARTS)].add_prefix(f"{arm}_")], axis=1)
    return frame


def routed(frame: pd.DataFrame) -> pd.Series:
    """Which samples Phase I sends to the agent: all it does not say "no" to; none where no router was asked."""
    said = frame["router_verdict"]
    return said.ne("no") if said.notna().any() else pd.Series(False, index=frame.index)


def arms_of(frame: pd.DataFrame) -> list[str]:
    """The arms a frame holds, run or computed, in the order of its columns."""
    return [c.removesuffix("_decision") for c in frame.columns if c.endswith("_decision")]


def arm(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """One arm's rows: `id task group` and its parts under their plain names, only samples it ran; `right` is bool."""
    part = frame[["id", "task", "group", *(f"{name}_{p}" for p in ARM_PARTS)]]
    part = part[part[f"{name}_decision"].notna()].rename(columns=lambda c: c.removeprefix(f"{name}_"))
    return part.assign(right=part["right"].fillna(False).astype(bool))


def load_run(
    run: str | Path, tasks: Sequence[str], arms: Sequence[str], *, human_checks: bool = True
) -> pd.DataFrame:
    """Read the finished stages 02 and 03 of a run and `assemble` them; the verdicts without what people overruled
    with `human_checks=False`.

    `frame.attrs["protocol"]` is the one they were judged under; `frame.attrs["total_s"]` holds, for imported records
    without times of their own, the seconds of whole tasks ("arm task" -> s).
    Raises StageError naming the notebook to run first where a stage is missing or unfinished, and where the
    verdicts are older than the records they judge or were given under different protocols.
    """
    records: dict[str, dict[str, AgentRecord]] = {}
    judged: dict[str, dict[str, JudgedRecord]] = {}
    protocols: set[str] = set()
    totals: dict[str, float] = {}
    for arm_name in arms:
        records[arm_name], judged[arm_name] = {}, {}
        for task in tasks:
            ran = read_stage(run, f"02_{arm_name}", task, AgentRecord)
            said = read_stage(run, f"03_judging/{arm_name}", task, JudgedRecord)
            if ran.records.keys() != said.records.keys():
                raise StageError(
                    f"run {run}: the verdicts on {arm_name} of {task} are not of the same samples as its records; "
                    "run notebooks/03_judging.ipynb again"
                )
            protocols.add(said.manifest.config.get("protocol", ""))
            if not all(record.timed for record in ran.records.values()):
                totals |= _totals(run, arm_name, task)
            records[arm_name] |= ran.records
            judged[arm_name] |= (
                said.records if human_checks else {i: r.without_human() for i, r in said.records.items()}
            )
    if len(protocols) > 1:
        raise StageError(
            f"run {run}: its arms were judged under different protocols ({', '.join(sorted(protocols))}); "
            "run notebooks/03_judging.ipynb for all of them under one"
        )
    frame = assemble(records, judged)
    # a word and a few numbers only: pandas copies attrs deeply on every operation
    frame.attrs["protocol"] = protocols.pop() if protocols else "strict"
    if totals:
        frame.attrs["total_s"] = totals
    return frame


def _totals(run: str | Path, arm_name: str, task: str) -> dict[str, float]:
    """Seconds that a whole task took, as manifests tell them: of an arm, and with `collect` of the drafts."""
    stages = {arm_name: f"02_{arm_name}"} | ({"draft_only": "01_draft"} if arm_name == "collect" else {})
    told = {
        f"{name} {task}": read_manifest(run, stage, task).timing.get("wall_s")
        for name, stage in stages.items()
        if is_finished(run, stage, task)
    }
    return {name: seconds for name, seconds in told.items() if seconds is not None}


def inputs_of(run: str, tasks: Sequence[str], arms: Sequence[str]) -> dict[str, str]:
    """stage/task -> sha256 of the records that `load_run` reads: the `inputs` of what is made from them."""
    stages = [(s, t) for a in arms for s in (f"02_{a}", f"03_judging/{a}") for t in tasks]
    return {f"{stage}/{task}": read_manifest(run, stage, task).outputs[RECORDS] for stage, task in stages}


# --------------------------------------------------------------------------------------------- summary

CLOCK = (
    "wall_s is the sum over samples of the busy clock charged to each: picture read and decoded, its share of the "
    "batched router and draft calls, its agent turns and its tools. Model load and warm-up are not included. "
    "baseline, gated and specreason run the agent one sample at a time and encode everything anew on every turn (the "
    "paper's setting); collect and the *_batched arms run many at a time and compute on a turn only what is new. "
    "draft_only is stage 01 as it ran; router_only is computed from the instrumented pass and baseline, not run; "
    "baseline_batched is the instrumented pass without its router, unless it was run as an arm of its own."
)
# an arm's speedup is over this one: the same agent setting, without the gate
REFERENCE = {
    "draft_only": "baseline",
    "gated": "baseline",
    "router_only": "baseline",
    "specreason": "baseline",
    "baseline_batched": "baseline",
    "gated_batched": "baseline_batched",
}
SUMMARY_ARMS = ("baseline", "draft_only", "gated", "router_only", "baseline_batched", "gated_batched")
EXTRA_ARMS = ("specreason",)  # told where it ran, not missed where it did not
COMPARISONS = (
    ("gated", "baseline"),
    ("gated", "router_only"),
    ("gated_batched", "baseline_batched"),
    ("draft_only", "baseline"),
    ("specreason", "baseline"),
)


HARD_BELOW = 0.42  # target_fraction under which a sample is called hard


def summarise(
    frame: pd.DataFrame,
    *,
    run: str = "",
    gate: Mapping | None = None,
    hard_below: float = HARD_BELOW,
    draws: int = metrics.DRAWS,
    seed: int = metrics.SEED,
) -> dict:
    """Everything the run says, as JSON-ready numbers: the content of `summary.json`.

    `arms` -> arm -> `pooled`, `average` (unweighted over splits) and `splits` -> task, each with `accuracy_pct`
    and its 95 % interval, `n`, `errors`, `unparsed`, `undecided`, `wall_s`, and against `REFERENCE` the `speedup`;
    arms with a gate or router also `alpha`, `beta` (fractions) and `accepted_pct`. `comparisons` are paired on the same
    samples. An arm that did not run is absent and named in `missing`. `gate` is passed through (threshold, rule).
    """
    arms, boot = arms_of(frame), {"draws": draws, "seed": seed}
    present = [a for a in (*SUMMARY_ARMS, *EXTRA_ARMS) if a in arms]
    summary = {
        "run": run,
        "protocol": protocol_of(frame),
        "clock": CLOCK,
        "intervals": "95 %, clustered by question (HR-Bench) and image (POPE) where these repeat, else Wilson",
        "n": len(frame),
        "gate": dict(gate or {}),
        "arms": {a: _arm_summary(frame, a, boot) for a in present},
        "missing": [a for a in SUMMARY_ARMS if a not in present],
        "comparisons": {
            f"{a}_vs_{b}": _by_split(frame, lambda part, a=a, b=b: _compared(part, a, b, boot))
            for a, b in COMPARISONS
            if a in arms and b in arms
        },
    }
    if "collect" in arms:
        summary["auroc"] = auroc_by_score(frame, **boot)
        summary["first_look"] = first_look(frame, hard_below, **boot)
    return summary


def protocol_of(frame: pd.DataFrame) -> str:
    return frame.attrs.get("protocol", "strict")


def _by_split(frame: pd.DataFrame, measure: Callable[[pd.DataFrame], dict]) -> dict:
    """A measure of the wide frame for all samples and for each split."""
    return {
        "pooled": measure(frame),
        "splits": {t: measure(part) for t, part in frame.groupby("task", sort=False)},
    }


def groups_of(part: pd.DataFrame) -> np.ndarray | None:
    """Groups to cluster by, or None where every sample is its own group (then Wilson's interval applies)."""
    return part["group"].to_numpy() if part["group"].duplicated().any() else None


def _scored(part: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows that count in accuracy: all under `strict`; `paper` drops errors, as the original does."""
    return part[part["verdict"] != "error"] if protocol == "paper" else part


def _arm_summary(frame: pd.DataFrame, name: str, boot: Mapping[str, int]) -> dict:
    told = _by_split(frame, lambda part: _measured(part, name, boot))
    splits = told["splits"].values()
    average = _average(_scored(arm(frame, name), protocol_of(frame)), boot)
    counted = {key: sum(s[key] for s in splits) for key in ("n", "errors", "unparsed", "undecided")}
    told["average"] = average | counted | {"wall_s": told["pooled"]["wall_s"]}
    if "speedup" in told["pooled"]:
        told["average"]["speedup"] = _mean([s["speedup"] for s in splits])
    return told


def _measured(frame: pd.DataFrame, name: str, boot: Mapping[str, int]) -> dict:
    part, reference = arm(frame, name), REFERENCE.get(name)
    counted = _scored(part, protocol_of(frame))
    share = metrics.accuracy(counted["right"], groups_of(counted), **boot)
    told = {
        **_estimate("accuracy", share),
        "n": share.n,
        "errors": int((part["verdict"] == "error").sum()),
        "unparsed": int((part["verdict"] == "unparsed").sum()),
        "undecided": int((part["verdict"] == "undecided").sum()),
        "wall_s": _wall_s(frame, name),
    }
    if reference in arms_of(frame):
        told |= _speedup(frame, name, reference, boot)
    if name.startswith(("gated", "router")):
        shares = metrics.funnel_shares(part["decision"] == "routed", part["decision"] == "accepted")
        told |= {
            "alpha": _finite(shares.alpha.value_pct / 100),
            "beta": _finite(shares.beta.value_pct / 100),
            **_estimate("accepted", shares.accepted),
        }
    return told


def _compared(frame: pd.DataFrame, a: str, b: str, boot: Mapping[str, int]) -> dict:
    return compare(frame, a, b, **boot).as_dict() | _speedup(frame, a, b, boot)


def _speedup(frame: pd.DataFrame, name: str, reference: str, boot: Mapping[str, int]) -> dict:
    both = paired(frame, name, reference)
    if both[["wall_s_a", "wall_s_b"]].notna().all(axis=None):
        ratio = metrics.speedup(both["wall_s_b"], both["wall_s_a"], groups_of(both), **boot)
        value, low, high = (_finite(v) for v in (ratio.value, ratio.low, ratio.high))
    else:  # totals have a ratio, seconds per sample, and no interval
        own_s, reference_s = _wall_s(frame, name), _wall_s(frame, reference)
        value = low = high = None
        if own_s and reference_s:
            value = (reference_s / len(arm(frame, reference))) / (own_s / len(arm(frame, name)))
    return {"speedup": value, "speedup_low": low, "speedup_high": high, "speedup_over": reference}


def _wall_s(frame: pd.DataFrame, name: str) -> float | None:
    """Seconds of an arm over a frame of whole tasks: its samples' own, else its tasks' totals; None: not told."""
    part = arm(frame, name)
    own_s = float(part["wall_s"].sum(skipna=False))
    totals = [frame.attrs.get("total_s", {}).get(f"{name} {task}") for task in part["task"].unique()]
    return own_s if math.isfinite(own_s) else None if None in totals else float(sum(totals))


def paired(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Samples that both arms ran; the parts of the arms with the suffixes `_a` and `_b`."""
    first, second = (arm(frame, name) for name in (a, b))
    parts = list(ARM_PARTS)
    columns = [first[["id", "task", "group"]], first[parts].add_suffix("_a"), second[parts].add_suffix("_b")]
    return pd.concat(columns, axis=1, join="inner")


def compare(frame: pd.DataFrame, a: str, b: str, **boot: int) -> metrics.PairedTest:
    """Is arm `a` more often right than arm `b`? Paired on the samples that both ran (and, under `paper`, kept)."""
    both = paired(frame, a, b)
    if protocol_of(frame) == "paper":
        both = both[(both["verdict_a"] != "error") & (both["verdict_b"] != "error")]
    return metrics.paired_test(both["right_a"], both["right_b"], groups_of(both), **boot)


def _average(part: pd.DataFrame, boot: Mapping[str, int]) -> dict:
    """Unweighted mean of the splits' accuracies; whole groups of all splits are drawn for its interval."""
    weight = len(part) / part.groupby("task")["id"].transform("size") / max(part["task"].nunique(), 1)
    mean = metrics.cluster_bootstrap(100.0 * part["right"] * weight, groups_of(part), **boot)
    return {
        "accuracy_pct": _finite(mean.value),
        "accuracy_low_pct": _finite(mean.low),
        "accuracy_high_pct": _finite(mean.high),
    }


def drafted(frame: pd.DataFrame) -> pd.DataFrame:
    """Samples with a judged draft; `right` says as a bool whether the draft is."""
    part = frame[frame["draft_verdict"].notna()]
    return part.assign(right=part["draft_right"].astype(bool))


def spread(drafts: pd.DataFrame, mode: str = "min") -> pd.DataFrame:
    """The least confident draft, the one in the middle and the most confident one (fewer where there are)."""
    ordered = drafts[drafts[f"score_{mode}"].notna()].sort_values([f"score_{mode}", "id"])
    at = sorted({0, len(ordered) // 2, len(ordered) - 1}) if len(ordered) else []
    return ordered.iloc[at]


def choose_threshold(frame: pd.DataFrame, mode: str = "min", delta_pp: float = 0.0) -> OperatingPoint:
    """`gate.choose_threshold` on the instrumented pass: every sample it ran, failed ones included as wrong."""
    part = frame[frame["collect_decision"].notna()]
    return gate_rule(
        part[f"score_{mode}"],
        part["draft_right"].fillna(False).astype(bool),
        part["agent_right"].fillna(False).astype(bool),
        routed(part),
        delta_pp,
    )


def funnel_at(
    frame: pd.DataFrame, threshold: float, mode: str = "min"
) -> tuple[metrics.Estimate, metrics.Estimate]:
    """(accuracy, accepted share) that the funnel would have at a threshold, computed from `collect`."""
    part = frame[frame["collect_decision"].notna()]
    to_agent = routed(part)
    right = gated_right(
        part[f"score_{mode}"],
        part["draft_right"].fillna(False).astype(bool),
        part["agent_right"].fillna(False).astype(bool),
        threshold,
        to_agent,
    )
    accepted = accepts(part[f"score_{mode}"], threshold) & ~to_agent.to_numpy()
    groups = groups_of(part)
    return metrics.accuracy(right, groups), metrics.accuracy(accepted, groups)


def auroc_by_score(frame: pd.DataFrame, modes: Sequence[str] = MODES, **boot: int) -> dict:
    """mode -> AUROC of the draft's confidence for its correctness: pooled, per split, and after the router."""
    everywhere = drafted(frame)
    let_through = everywhere[~routed(everywhere)]

    def measured(part: pd.DataFrame, mode: str) -> dict:
        return metrics.auroc(part[f"score_{mode}"], part["right"], groups_of(part), **boot).as_dict()

    return {
        mode: _by_split(everywhere, lambda part, mode=mode: measured(part, mode))
        | {"after_router": measured(let_through, mode)}
        for mode in modes
    }


def first_look(frame: pd.DataFrame, hard_below: float = HARD_BELOW, **boot: int) -> dict:
    """The agent with its tool against its own forced first look, on hard, easy and all samples.

    Hard: `target_fraction` below `hard_below`. Samples of unknown size are in `all` only; where no first look
    was taken, or no size is known, the entry says so by n = 0.
    """
    looked = frame[frame["first_look_verdict"].notna() & frame["agent_verdict"].notna()]
    size = looked["target_fraction"]
    told: dict = {"hard_below": hard_below, "n_size_unknown": int(size.isna().sum())}
    for name, part in (
        ("hard", looked[size < hard_below]),
        ("easy", looked[size >= hard_below]),
        ("all", looked),
    ):
        with_tool, without = part["agent_right"].astype(bool), part["first_look_right"].astype(bool)
        told[name] = {
            "n": len(part),
            **_estimate("zoom", metrics.accuracy(with_tool, groups_of(part), **boot)),
            **_estimate("first_look", metrics.accuracy(without, groups_of(part), **boot)),
            "gain": metrics.paired_test(with_tool, without, groups_of(part), **boot).as_dict(),
        }
    return told


def _estimate(name: str, estimate: metrics.Estimate) -> dict[str, float | None]:
    return {
        f"{name}_pct": _finite(estimate.value_pct),
        f"{name}_low_pct": _finite(estimate.low_pct),
        f"{name}_high_pct": _finite(estimate.high_pct),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    return None if not values or None in values else float(np.mean(values))
