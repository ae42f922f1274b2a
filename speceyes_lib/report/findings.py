"""Sentences that say what a run's numbers say. Each follows from the values it is given, whatever they are.

"Not told apart" is never "equal": it says that the test does not exclude chance at this n.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import pandas as pd

from ..analysis.results import method_of, score_of
from ..analysis.score_comparison import identical_scores
from ..gating.threshold import OperatingPoint
from ..stats.intervals import Estimate
from .formatting import number, p_text, times
from .labels import method_label, split_label

SIGNIFICANT = 0.05


def paragraphs(*sentences: str) -> str:
    """Sentences as wrapped text, one paragraph each, for `print`."""
    return "\n\n".join(textwrap.fill(sentence, 100) for sentence in sentences)


def judging_finding(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What could not be decided: arm -> verdict -> how many final answers."""
    total = sum(sum(c.values()) for c in counts.values())
    open_ = {v: sum(c.get(v, 0) for c in counts.values()) for v in ("unparsed", "undecided", "error")}
    told = [f"{n} {verdict}" for verdict, n in open_.items() if n]
    decided = total - sum(open_.values())
    return f"{decided} of {total} final answers were called right or wrong" + (
        f"; {', '.join(told)}." if told else "."
    )


def comparison_finding(summary: Mapping, a: str = "gated", b: str = "baseline") -> str:
    """Arm `a` against arm `b`, pooled: accuracy (paired), clock and what was accepted."""
    score = score_of(summary)
    first, second = (method_label(method_of(arm, score)) for arm in (a, b))
    told = summary["comparisons"].get(f"{a}_vs_{b}")
    if told is None:
        return f"{first} and {second} cannot be compared: this run does not have both."
    test = told["pooled"]
    if not test["n"]:
        return f"{first} and {second} share no sample."
    text = f"{first} is right on {_points(test['diff_pp'])} {second} ({_interval(test)}, n={test['n']}), "
    text += (
        f"a difference that chance does not explain (exact McNemar p {_p_relation(test['p_value'])})"
        if test["p_value"] < SIGNIFICANT
        else f"and the paired test does not tell them apart (exact McNemar p {_p_relation(test['p_value'])})"
    )
    if test["speedup"] is not None:
        text += f", at {times(test['speedup'])} its speed"
    accepted = summary["arms"][a]["pooled"].get("accepted_pct")
    return text + (
        f", with {accepted:.1f} % of the samples answered by the draft." if accepted is not None else "."
    )


def _p_relation(value: float) -> str:
    """ "= 0.031", or "< 0.001"."""
    text = p_text(value)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _points(diff: float) -> str:
    if abs(diff) < 0.05:
        return "as many samples as"
    return f"{abs(diff):.1f} points {'more' if diff > 0 else 'fewer'} of the samples than"


def _interval(test: Mapping) -> str:
    return (
        f"95 % interval {number(test['low_pp'], 1)} to {number(test['high_pp'], 1)}"
        if test["low_pp"] is not None
        else "no interval"
    )


def ranking_finding(auroc: Mapping, mode: str = "min") -> str:
    """How well confidence ranks right drafts above wrong ones: the chosen mode, the best one, the weakest split."""
    pooled = {m: told["pooled"]["value"] for m, told in auroc.items() if told["pooled"]["value"] is not None}
    if mode not in pooled:
        return f"All drafts are right, or all wrong, or none is scored: {mode} has nothing to tell apart."
    told = auroc[mode]
    text = (
        f"A right draft outscores a wrong one by {mode} in {100 * pooled[mode]:.0f} % of the pairs "
        f"(AUROC {_auroc(told['pooled'])})"
    )
    after = told["after_router"]
    if after["value"] is not None:
        text += f"; among the drafts that the router lets through, where the gate decides, {_auroc(after)}"
    best = max(pooled, key=pooled.__getitem__)
    text += ". " if best == mode else f". {best} ranks best here ({pooled[best]:.3f}). "
    splits = {s: e["value"] for s, e in told["splits"].items() if e["value"] is not None}
    if len(splits) > 1:
        weakest = min(splits, key=splits.__getitem__)
        text += f"Its weakest split is {split_label(weakest)} ({splits[weakest]:.3f})."
    return text.strip()


def twin_finding(drafts: pd.DataFrame, modes: Sequence[str]) -> str:
    """Which modes are one and the same score on these drafts, if any."""
    same = max(identical_scores(drafts.rename(columns={f"score_{m}": m for m in modes}), modes), key=len)
    if len(same) < 2 or not len(drafts):
        return "No two modes give every draft the same score."
    return (
        f"{', '.join(same[:-1])} and {same[-1]} give every draft the same score here, as min, mean and bottom20 "
        "must when answers are one token long; nothing in this run can tell them apart."
    )


def _auroc(entry: Mapping) -> str:
    interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if entry["low"] is not None else ""
    return f"{entry['value']:.3f}{interval}, n={entry['n']}"


def threshold_finding(
    here: OperatingPoint, used: Mapping | None = None, at: tuple[Estimate, Estimate] | None = None
) -> str:
    """The threshold chosen here; or, with `used`, what a threshold from elsewhere does here.

    `used` is an operating point as `read_operating_point` gives it, `at` the funnel's (accuracy, accepted) there.
    """
    if used is None or at is None:
        return (
            f"Rule: {here.rule}. On these {here.n} samples it picks {here.threshold:.6g}: "
            f"{here.accepted_pct:.1f} % keep their draft, and the funnel is right on {here.accuracy_pct:.1f} % "
            f"against the agent's {here.baseline_accuracy_pct:.1f} %. "
            "The threshold was chosen on these samples, so these figures are no result to report."
        )
    origin = used.get("chosen_on", {}).get("run")
    accuracy, accepted = at
    return (
        f"The threshold in use is {used['threshold']:.6g}, chosen on {f'run {origin}' if origin else 'other data'}. "
        f"Here it lets {accepted.value:.1f} % of the samples keep their draft, and the funnel is right on "
        f"{accuracy.value:.1f} % against the agent's {here.baseline_accuracy_pct:.1f} % (n={here.n}). "
        f"The same rule applied to these very samples would pick {here.threshold:.6g} "
        f"({here.accepted_pct:.1f} % accepted, {here.accuracy_pct:.1f} % right): shown, not used."
    )


def first_look_finding(summary: Mapping) -> str:
    """What zooming is worth on hard samples."""
    told = summary.get("first_look")
    if not told or not told["all"]["n"]:
        return "No first look was taken in this run: what zooming is worth is not known."
    hard, easy = told["hard"], told["easy"]
    if not hard["n"]:
        return "No sample is known to be hard: target sizes are not recorded, or all are large."
    gain = hard["gain"]
    text = (
        f"On the {hard['n']} hard samples (target below {told['hard_below']:g} of the image's side) "
        f"the agent is right on {hard['zoom_pct']:.1f} % with its tool and on "
        f"{hard['first_look_pct']:.1f} % at its forced first look: "
        f"{gain['diff_pp']:+.1f} points ({_interval(gain)}, McNemar p {_p_relation(gain['p_value'])})"
    )
    if easy["n"]:
        text += f"; on the {easy['n']} easy ones {easy['gain']['diff_pp']:+.1f} points"
    return text + "."


def summary_findings(summary: Mapping) -> list[str]:
    """The run in a few sentences: gate, batched setting, router, draft alone, zoom."""
    pairs = (
        ("gated", "baseline"),
        ("gated_batched", "baseline_batched"),
        ("gated", "router_only"),
        ("draft_only", "baseline"),
    )
    told = [comparison_finding(summary, a, b) for a, b in pairs if f"{a}_vs_{b}" in summary["comparisons"]]
    if "first_look" in summary:
        told.append(first_look_finding(summary))
    if summary["missing"]:
        names = ", ".join(method_label(method_of(a, score_of(summary))) for a in summary["missing"])
        told.append(f"Not in this run: {names}.")
    return told
