"""The explorers' views without a kernel: what executed notebooks and exported pages show of the default state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from markupsafe import escape

from ..report.rendering import environment
from ..report.sample_page import SampleView, recorded_sample, short_id, styled_page
from ..runs.recorded_run import RecordedRun
from . import gating, traces
from .gating import Gating
from .state import Chosen, GateView, TraceView

if TYPE_CHECKING:
    from IPython.display import HTML


def gate_still(data: Gating, view: GateView) -> HTML:
    """Numbers, decisions and ledger of a view."""
    told = gating.outcome(data, view)
    decided = data.decided(view)
    protocol = data.part(view.task, view.protocol).protocol
    setting = (
        f"score {view.score}, K {view.k}, threshold {view.threshold:.4f}, router {view.router}, "
        f"{'all splits' if view.task == 'all' else view.task}"
    )
    tables = (
        environment()
        .get_template("gate.html")
        .module.tables(gating.decisions_of(decided), gating.ledger_totals(decided))
    )
    return _page([f"<p>{escape(setting)}</p>", gating.outcome_html(told, protocol), tables])


def sample_still(data: Gating, view: GateView) -> SampleView:
    """One sample in full: `view.sample` under the view's setting."""
    row = data.decided(view).set_index("id", drop=False).loc[view.sample]
    setting = {"threshold": view.threshold, "k": view.k, "overrides": data.overrides}
    return recorded_sample(data.run, data.instrumented, view.sample, row, **setting)


def trace_still(
    run: RecordedRun, view: TraceView, other: RecordedRun | None = None, other_arm: str = ""
) -> HTML:
    """The first trajectory that a view lists, and the same sample of another run or arm beside it."""
    listed = traces.sift(table := traces.trace_table(run, view.arm), view)
    parts = [f"<p>{escape(traces.shape_of(listed, table))}</p>"]
    if not len(listed):
        return _page(parts)
    id_ = view.sample or listed["id"].iloc[0]
    shown = recorded_sample(run, view.arm, id_)
    parts += [shown.part("question"), shown.part("picture")]
    columns = f"<div>{traces.trace_html(run, view.arm, id_, view.text)}</div>"
    if other is not None:
        parts.append(f"<p>{escape(traces.difference_line((run, view.arm), (other, other_arm), id_))}</p>")
        columns += f"<div>{traces.trace_html(other, other_arm, id_, view.text)}</div>"
    return _page([*parts, _side_by_side(columns)])


def review_plan(
    data: Gating, view: GateView, half_widths_pp: tuple[float, ...] = (2, 5, 10, 15)
) -> pd.DataFrame:
    """How many samples of the part to look at for a share known to +- so many points, and what was marked so far."""
    n = data.part(view.task, view.protocol).n
    marks = data.marks(view)
    rows = [
        {"known to ±, pp": h, "samples to review": gating.sample_size(h, n), "of": n} for h in half_widths_pp
    ]
    return pd.DataFrame(rows).assign(
        **{"marked so far": len(marks), "sound": int((marks["mark"] == "sound").sum())}
    )


def review_queues(data: Gating, view: GateView, n: int, seed: int) -> pd.DataFrame:
    """How many samples each queue for review holds, and which come first."""
    decided = data.decided(view)
    rows = []
    for kind in ("disagree", "borderline", "random"):
        chosen = Chosen(kind, n=n, seed=seed)
        found = gating.listed(decided, replace(view, chosen=chosen))
        first = ", ".join(short_id(i) for i in found["id"].head(3))
        rows.append(
            {"queue": gating.chosen_text(chosen), "samples": len(found), "of": len(decided), "first": first}
        )
    return pd.DataFrame(rows).set_index("queue")


def _side_by_side(columns: str) -> str:
    return f"<div style='display: flex; gap: 2rem; flex-wrap: wrap; align-items: flex-start'>{columns}</div>"


def _page(parts: list[str]) -> HTML:
    from IPython.display import HTML

    return HTML(styled_page(*parts))
