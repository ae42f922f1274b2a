"""Tables and sentences of notebook 04. Each sentence follows from the values it is given, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.confidence_data import ConfidenceData
from ..gating import scores
from ..gating.certificates import Rule
from ..replay.outcomes import POOLED
from .formatting import number, times, with_interval
from .labels import split_label

NEAR_TIE = 0.25  # (p_1 - p_2) / (p_1 + p_2) below which a draft is called a near tie: odds under 5 to 3
CONTRAST = {
    "per_split": "no less accurate, split by split",
    "per_split_on_test": "the same, chosen on the test half",
}


# ------------------------------------------------------------------ scores


def score_table(compared: pd.DataFrame, groups: Sequence[Sequence[str]]) -> pd.DataFrame:
    """`scores.compare` as text, one row per group of `identical_scores`: they are one score on these drafts."""
    told = compared.set_index("score")
    coverages = [c for c in compared if c.startswith("accuracy_at_") and not c.endswith(("_low", "_high"))]
    rows = {}
    for group in groups:
        row = told.loc[group[0]]
        probability = next((told.loc[g] for g in group if told.loc[g, "is_probability"]), row)

        def cell(name: str, digits: int = 3, sign: str = "", row: pd.Series = row) -> str:
            return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits=digits, sign=sign)

        rows[" = ".join(scores.SCORES[name].label for name in group)] = {
            "n": row["n"],
            "AUROC [95 %]": cell("auroc"),
            "less that of min": "" if group[0] == "min" else cell("auroc_gain", sign="+"),
            "AURC": number(row["aurc"], 4),
            "excess AURC [95 %]": cell("excess_aurc", 4),
            **{f"accuracy % of the surest {c[12:-4]} %": cell(c, 1) for c in coverages},
            "Brier [95 %]": cell("brier", row=probability) if "brier" in told else "",
            "ECE [95 %]": cell("ece", row=probability) if "ece" in told else "",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def score_finding(compared: pd.DataFrame, reference: str = "min") -> str:
    """Which score ranks best, and whether that is more than chance."""
    told = compared.set_index("score").dropna(subset=["auroc"])
    if reference not in told.index:
        return "All drafts are right, or all are wrong, or none is scored: there is nothing to tell apart."
    best = told["auroc"].idxmax()
    base = told.loc[reference]
    text = f"{_label(reference)} ranks a right draft above a wrong one in {100 * base['auroc']:.1f} % of the pairs. "
    if best == reference:
        return text + "No other score here ranks better."
    row = told.loc[best]
    surer = row["auroc_gain_low"] > 0
    return text + (
        f"{_label(best)} does best ({100 * row['auroc']:.1f} %): {100 * row['auroc_gain']:+.1f} points "
        f"[{100 * row['auroc_gain_low']:+.1f}, {100 * row['auroc_gain_high']:+.1f}], "
        + ("more than chance explains." if surer else "which chance may explain at this n.")
    )


def tie_finding(ties: pd.DataFrame) -> str:
    """How many of the drafts above each threshold are near ties, and how often these are wrong."""
    if not ties["n"].any():
        return "The run kept no evidence of its drafts: how many of them are near ties is not known."
    told = []
    for name, part in ties.groupby("drafts", sort=False):
        near, n, wrong = part[part["margin_to"] <= NEAR_TIE], part["n"].sum(), part["n_wrong"].sum()
        if not n:
            told.append(f"{name}: none")
            continue
        of = f"{near['n'].sum()} of {n} are near ties"
        told.append(f"{name}: {of}, with {near['n_wrong'].sum()} of the {wrong} wrong ones")
    return f"Near ties (margin below {NEAR_TIE:g}) among the drafts. {'; '.join(told)}."


# ------------------------------------------------------------------ ledger


def ledger_table(ledger: pd.DataFrame) -> pd.DataFrame:
    """`confidence_run.ledger` as text."""
    shown = ledger.assign(
        confidence=[number(v, 4) for v in ledger["confidence"]],
        saved=[number(1e3 * v, 0) for v in ledger["saved_s"]],
    )
    return shown.drop(columns="saved_s").rename(columns={"saved": "ms saved"}).fillna("").set_index("id")


def ledger_finding(ledger: pd.DataFrame) -> str:
    """What accepting drafts gained and lost against the agent alone."""
    n = ledger["outcome"].value_counts()
    gained, lost, both, unknown = (int(n.get(o, 0)) for o in ("gained", "lost", "both wrong", "unknown"))
    text = (
        f"Against the agent alone the accepted drafts gain {gained} and lose {lost} samples "
        f"({gained - lost:+d}); {both} more are wrong either way."
    )
    return text + (f" Of {unknown} the agent's answer is not recorded." if unknown else "")


# ------------------------------------------------------------------ certificates


def rule_labels(rules: Sequence[Rule]) -> dict[str, str]:
    """Rule -> how it is called in tables and figures, with its kind of guarantee."""
    named = {r.name: r.label if r.guarantee == "none" else f"{r.label}\n({r.guarantee})" for r in rules}
    return named | CONTRAST


def certificate_table(points: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """`gating.certify` or `gating.evaluate_rules` as text, one row a rule, means over the repeats.

    "held-out risk" is that of the test half in percent, with its largest value; a test half is a sample itself, so a
    certified threshold may exceed its target there now and then.
    """
    labels, rows = rule_labels(rules), {}
    bounding = {r.name for r in rules if r.risk and r.guarantee != "uncorrected"}
    for rule in [*(r.name for r in rules), *CONTRAST] if len(points) else []:
        part = points[points["rule"] == rule]
        risk, several = part["risk_pct"].dropna(), len(part) > 1
        certified = int(part["certified"].sum())
        worst = f" (at most {risk.max():.1f})" if several and len(risk) else ""
        gain = part["accuracy_pct"] - part["agent_pct"]
        rows[labels[rule].replace("\n", " ")] = {
            "certified": f"{certified} of {len(part)}" if rule in bounding else "",
            "threshold": number(part["threshold"].median(), 4),
            "target risk %": number(part["target_pct"].iloc[0], 1),
            "held-out risk %": f"{risk.mean():.2f}{worst}" if len(risk) else "",
            "accepted %": number(part["coverage_pct"].mean(), 1),
            "accuracy less agent's": f"{gain.mean():+.2f}".replace("-", "−"),
            "speedup": times(part["speedup"].mean()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def certificate_finding(points: pd.DataFrame, rules: Sequence[Rule]) -> str:
    """What is certified, what is not certifiable, and what choosing on the test half pretends."""
    told = []
    for rule in rules:
        part = points[points["rule"] == rule.name]
        if not rule.risk or rule.guarantee == "uncorrected":
            continue
        if not part["certified"].any():
            reason = part["reason"].iloc[0]
            told.append(f"{rule.label} ({rule.guarantee}) is not certifiable at this sample size ({reason})")
    text = f"{'; '.join(told)}. " if told else "Every bound can be certified here. "
    means = points.groupby("rule")[["accuracy_pct", "agent_pct"]].mean()
    gain = means["accuracy_pct"] - means["agent_pct"]
    if set(CONTRAST) <= set(gain.index):
        text += (
            f"Thresholds chosen on the very samples they are reported on look {gain['per_split_on_test']:+.2f} points "
            f"against the agent; chosen the same way on other samples they give {gain['per_split']:+.2f}. "
            f"The difference, {gain['per_split_on_test'] - gain['per_split']:.2f} points, is not there for new samples."
        )
    return text


# ------------------------------------------------------------------ economics and planner


def economics_table(table: pd.DataFrame) -> pd.DataFrame:
    """`break_even` as text."""
    rows = {
        ("all" if row.task == POOLED else split_label(row.task)): {
            "n": row.n,
            "alpha": number(row.alpha),
            "beta": number(row.beta),
            "accepted %": number(100 * row.accepted, 1),
            "break-even %": number(100 * row.overhead, 1),
            "router ms": number(row.route_ms, 1),
            "draft ms": number(row.draft_ms, 1),
            "agent ms": number(row.agent_ms, 1),
            "saved, by the formula ms": number(row.gain_ms, 1),
            "saved, as charged ms": number(row.saved_ms, 1),
            "price ms": number(row.price_ms, 1),
            "pays": "yes" if row.pays else "no",
        }
        for row in table.itertuples()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def economics_finding(table: pd.DataFrame) -> str:
    """Whether the gate pays, and whether the samples it takes away are the dear ones."""
    if not len(table):
        return "The run was not timed: whether the gate pays is not known."
    told = table.set_index("task").loc[POOLED]
    text = (
        f"Router and drafts cost {100 * told['overhead']:.1f} % of what the agent does, so the gate pays once it "
        f"accepts more than that share; it accepts {100 * told['accepted']:.1f} %. "
    )
    ratio = told["saved_ms"] / told["gain_ms"] if told["gain_ms"] else np.nan
    if np.isfinite(ratio):
        dear = "dearer" if ratio > 1 else "cheaper"
        text += f"The samples it takes off the agent are {abs(100 * (ratio - 1)):.0f} % {dear} than the average one."
    return text


def planner_table(load: pd.DataFrame) -> pd.DataFrame:
    """`simulate_fleet` as text: one row per workload and number of users."""
    names = {"funnel": "with the gate", "agent": "agent alone"}
    rows = {
        (names[row.workload], f"{row.users:,}"): {
            "replicas": f"{row.small} + {row.large}",
            "requests / s": number(row.throughput_per_s, 1),
            "median s": number(row.p50_s, 3),
            "95 % within s": number(row.p95_s, 3),
            "small busy %": number(100 * row.small_utilisation, 0),
            "large busy %": number(100 * row.large_utilisation, 0),
        }
        for row in load.itertuples()
    }
    told = pd.DataFrame.from_dict(rows, orient="index")
    if rows:
        told.index = pd.MultiIndex.from_tuples(rows, names=["workload", "users"])
    return told


def planner_finding(fleets: pd.DataFrame) -> str:
    """The division of a fleet that answers most, against the agent alone."""
    if not len(fleets):
        return "The run was not timed: a fleet cannot be planned from it."
    funnel, agent = (fleets[fleets["workload"] == name] for name in ("funnel", "agent"))
    best, alone = funnel.loc[funnel["per_gpu_per_s"].idxmax()], agent.loc[agent["per_gpu_per_s"].idxmax()]
    ratio = best["per_gpu_per_s"] / alone["per_gpu_per_s"]
    return (
        f"Of {best['gpus']:g} replicas, {best['small']:g} small and {best['large']:g} large answer most: "
        f"{best['per_gpu_per_s']:.1f} requests per second and replica against {alone['per_gpu_per_s']:.1f} of the "
        f"agent alone ({times(ratio)}). Simulated from this run's service times, a small replica counted as dear as a "
        "large one."
    )


# ------------------------------------------------------------------ for the next stages


def confidence_summary(run: ConfidenceData, compared: pd.DataFrame) -> dict[str, Any]:
    """The scores of `compare` as JSON-ready numbers, for `confidence.json`, and what the run lacks."""
    return {"scores": _records(compared), "missing": dict(run.missing)}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


def _label(name: str) -> str:
    label = scores.SCORES[name].label if name in scores.SCORES else name
    return label[:1].upper() + label[1:]
