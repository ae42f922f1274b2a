"""Every colour means one thing, and stands in `style.py` alone."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex

from speceyes_lib.gating.scores import SCORES
from speceyes_lib.report.labels import method_label
from speceyes_lib.report.plots import confidence, style

PLOTS = Path(style.__file__).parent


def test_every_colour_means_one_thing():
    meanings = {"right": style.RIGHT, "wrong": style.WRONG, "muted": style.MUTED, "ink": style.INK}
    meanings |= style.METHOD_COLORS | {f"score {name}": color for name, color in style.SCORE_COLORS.items()}
    # the router, the draft and the agent are the same thing as a phase and as a method; the first series is ink
    own_phases = {"decode_s", "tool_s"}
    meanings |= {f"phase {p}": c for p, c in style.PHASE_COLORS.items() if p in own_phases}
    meanings |= {f"series {i}": color for i, (color, _) in enumerate(style.SERIES) if i}
    colors = [to_hex(color) for color in meanings.values()]
    shared = {name for name, color in meanings.items() if colors.count(to_hex(color)) > 1}
    assert not shared
    phases = style.PHASE_COLORS
    methods = style.METHOD_COLORS
    same = {"router_s": "router_only", "draft_s": "draft_only", "agent_s": "baseline"}
    assert set(phases) == own_phases | set(same)
    assert all(phases[phase] == methods[method] for phase, method in same.items())


@pytest.mark.parametrize("name", SCORES)
def test_every_score_has_a_colour_and_a_label_as_a_method_too(name):
    assert style.score_color(name) == style.method_color(f"speceyes_{name}_batched") != style.MUTED
    assert SCORES[name].short in method_label(f"speceyes_{name}")


@pytest.mark.parametrize("path", sorted(PLOTS.glob("*.py")), ids=lambda p: p.name)
def test_no_other_file_of_figures_holds_a_colour(path):
    assert path.name == "style.py" or not re.findall(r"#[0-9A-Fa-f]{6}", path.read_text("utf-8"))


def test_a_colour_changed_in_its_one_home_changes_the_figure(monkeypatch):
    curves = pd.DataFrame(
        {"score": "min", "coverage_pct": [50.0, 100.0], "risk_pct": [0.0, 5.0], "aurc": 0.1, "n": 9}
    )
    monkeypatch.setitem(style.METHOD_COLORS, "speceyes_min", "#123456")
    figure = confidence.risk_coverage(curves)
    assert to_hex(figure.axes[0].lines[0].get_color()) == "#123456"


@pytest.mark.parametrize("path", sorted(PLOTS.glob("*.py")), ids=lambda p: p.name)
def test_no_text_of_a_figure_is_under_7_points(path):
    sizes = re.findall(r"(?:font|label)size=([\d.]+)", path.read_text("utf-8"))
    assert all(float(size) >= 7 for size in sizes)


def test_the_style_has_no_text_under_7_points():
    lines = (PLOTS / "speceyes.mplstyle").read_text("utf-8")
    sizes = re.findall(r"^\w+\.(?:font|label|title)?size: ([\d.]+)$", lines, re.MULTILINE)
    assert len(sizes) >= 6
    assert all(float(size) >= 7 for size in sizes)


@pytest.mark.parametrize("path", sorted(PLOTS.glob("*.py")), ids=lambda p: p.name)
def test_no_figure_uses_colours_of_matplotlib(path):
    assert not re.search(r"tab10|tab20|[\"']C\d[\"']", path.read_text("utf-8"))
