"""The explorers' views without a kernel: what executed notebooks and exported pages show of the default state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import escape

from ..report.rendering import environment
from ..report.sample_page import SampleView, recorded_sample, styled_page
from ..runs.recorded_run import RecordedRun
from . import gating, traces
from .gating import Gating
from .state import ALL, GateView, TraceView

if TYPE_CHECKING:
    from IPython.display import HTML


def gate_still(data: Gating, view: GateView) -> HTML:
    """Numbers, decisions and ledger of a view."""
    decided, protocol = data.decided(view), data.part(view.task, view.protocol).protocol
    task = "all splits" if view.task == ALL else view.task
    setting = f"score {view.score}, K {view.k}, threshold {view.threshold:.4f}, router {view.router}, {task}"
    template = environment().get_template("gate.html").module
    tables = template.tables(gating.decisions_of(decided), gating.ledger_totals(decided))
    cards = gating.summary_html(gating.gate_summary(data, view), protocol)
    return _page(f"<p>{escape(setting)}</p>", cards, tables)


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
        return _page(*parts)
    id_ = view.sample or listed["id"].iloc[0]
    sample = recorded_sample(run, view.arm, id_)
    parts += [sample.part("question"), sample.part("picture")]
    beside = [traces.trace_html(run, view.arm, id_, view.text)]
    if other is not None:
        parts.append(f"<p>{escape(traces.difference_line((run, view.arm), (other, other_arm), id_))}</p>")
        beside.append(traces.trace_html(other, other_arm, id_, view.text))
    layout = "display: flex; gap: 2rem; flex-wrap: wrap; align-items: flex-start"
    return _page(*parts, f"<div style='{layout}'>", *(f"<div>{part}</div>" for part in beside), "</div>")


def _page(*parts: str) -> HTML:
    from IPython.display import HTML

    return HTML(styled_page(*parts))
