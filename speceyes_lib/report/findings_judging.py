"""Sentences on verdicts: who judged, how far they agree, what a scorer makes of the same answers. See `findings`."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .formatting import number


def model_finding(replies: pd.DataFrame, cost: Mapping[str, int]) -> str:
    """What asking the judging model came to: the tables of `model_replies` and `session_cost`."""
    if not replies["answers"].any():
        return "No judging model was asked; what the rules leave undecided counts as wrong."
    silent = replies.index.str.startswith("no reply")
    answers, lost = int(replies["answers"].sum()), int(replies.loc[silent, "answers"].sum())
    text = (
        f"The judging model was asked about {answers} answers; {lost} of them got no reply, and "
        f"{int(replies['unreadable'].sum())} a reply that holds no judgement."
    )
    asked, tokens, cached = (cost.get(f"judge_{name}", 0) for name in ("requests", "tokens", "from_cache"))
    session = f"sent {asked} requests ({tokens} tokens); {cached} replies were at hand"
    return f"{text} The session that finished them {session}."


def agreement_finding(agreement: pd.DataFrame) -> str:
    """How far rule, model and people agree where two of them judged the same answer: `agreement`."""
    told = []
    for raters, row in agreement.iterrows():
        if row["n"]:
            kappa = row["kappa"]
            measure = "kappa undefined, all say the same" if pd.isna(kappa) else f"kappa {number(kappa)}"
            told.append(f"{raters}: {row['agree_pct']:.1f} % of {int(row['n'])} answers ({measure})")
    if not told:
        return "No answer was judged by two of rule, model and people, so their agreement is not known."
    return f"Agreement on the same answers: {'; '.join(told)}."


def scorer_finding(scored: pd.DataFrame, differing: pd.DataFrame, steps: pd.DataFrame) -> str:
    """What the choice of the scorer moves: the frames of `scorer_comparison`."""
    first, last = steps.iloc[0], steps.iloc[-1]
    open_ = int((scored["paper"] == "undecided").sum())
    text = (
        f"The scorers count {len(differing)} of {len(scored)} answers differently. The published rules call "
        f"{first['accuracy_pct']:.1f} % of n={first['n']} right and would ask a language model about {open_}; the "
        f"strict protocol calls {last['accuracy_pct']:.1f} % of n={last['n']} right"
    )
    inner = steps.iloc[1:-1]
    if inner.empty:
        return f"{text}."
    most = inner.loc[inner["moved_points"].abs().idxmax()]
    return f"{text}; the step that moves most ({most['moved_points']:+.1f} points): {most['step']}."
