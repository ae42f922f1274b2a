"""A setting beside a pinned one: what flips is counted sample by sample, and the differences are the paired ones."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from explore_run import K_STORED, store_run

from speceyes_lib.explore import comparing, gating, links
from speceyes_lib.explore.gating_explorer import GatingExplorer
from speceyes_lib.explore.state import Chosen, GateView
from speceyes_lib.stats.paired import paired_test
from speceyes_lib.stats.resampling import linearised_difference, linearised_ratio

VIEW = GateView(threshold=0.9, k=K_STORED)


def decided(*rows: tuple) -> pd.DataFrame:
    """Rows of (id, decision, right, draft right, seconds)."""
    frame = pd.DataFrame(rows, columns=["id", "decision", "right", "draft_right", "wall_s"])
    frame["used"] = np.where(frame["decision"] == "accepted", "small", "large")
    flags = frame[["right", "draft_right"]].astype("boolean")
    return frame.assign(group=frame["id"], right=flags["right"], draft_right=flags["draft_right"])


def test_what_flips_against_the_pinned_setting():
    pinned = decided(
        ("b/s/1", "accepted", True, True, 1.0),
        ("b/s/2", "accepted", False, False, 1.0),
        ("b/s/3", "rejected", True, True, 4.0),
        ("b/s/4", "rejected", None, False, 4.0),
    )
    now = decided(
        ("b/s/1", "rejected", False, True, 4.0),  # worse
        ("b/s/2", "rejected", True, False, 4.0),  # better
        ("b/s/3", "accepted", True, True, 1.0),  # the same verdict by the other model
        ("b/s/4", "routed", True, False, 4.0),  # the agent both times, and not judged there
        ("b/s/5", "accepted", True, True, 1.0),  # not there
    )
    both = comparing.beside(now, pinned)
    assert both["flip"].tolist() == ["worse", "better", "same", "", ""]
    assert both["there"].tolist() == ["accepted", "accepted", "rejected", "rejected", ""]
    result = comparing.compare(both, pinned)
    assert result.n == 4
    assert result.flips == {"better": 1, "worse": 1, "same": 1}
    assert (result.accuracy.b, result.accuracy.c, result.accuracy.p_value) == (1, 1, 1.0)
    assert result.accuracy.difference.n == 3
    assert result.coverage.difference.value == pytest.approx(-25)
    assert result.risk_pp.value == pytest.approx(0 - 50)  # none of one, one of two
    assert result.faster.value == pytest.approx(10 / 13)


def test_a_difference_of_ratios_has_the_interval_of_one_ratio_where_the_other_is_known():
    rng = np.random.default_rng(0)
    a, n = rng.integers(0, 2, 200).astype(float), np.ones(200)
    one, other = linearised_ratio(a, n), linearised_difference((a, n), (np.zeros(200), n))
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))
    same = linearised_difference((a, n), (a, n))
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert math.isnan(linearised_difference((a, np.zeros(200)), (a, n)).value)


@pytest.fixture
def explorer(tmp_path, monkeypatch, stored_run) -> GatingExplorer:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    shutil.copytree(stored_run, tmp_path / "runs")
    return GatingExplorer("small", VIEW, author="Ada")


def listed(explorer) -> set[str]:
    return {row["id"] for row in explorer.samples.rows}


def test_a_pinned_setting_stays_and_the_list_holds_what_flips(explorer):
    assert "ghost" not in explorer.distribution.spec
    explorer.pin.click()
    ring = explorer.trade_off.dot
    assert explorer.samples.rows == []
    explorer.threshold.value = 0.999
    data, pinned = explorer.gating, explorer.view.of_pin()
    before, now = (data.decided(view).set_index("id") for view in (pinned, explorer.view))
    flipped = set(now.index[(now["used"] != before["used"]) | (now["right"] != before["right"])])
    assert listed(explorer) == flipped != set()
    assert explorer.trade_off.spec["ring"] == ring != explorer.trade_off.dot
    assert explorer.distribution.spec["ghost"]["label"] == "pinned 0.9000"
    assert all(row["cells"][3].startswith("accepted ") for row in explorer.samples.rows)
    known = paired_test(now["right"], before["right"], now["group"])
    assert f"({known.b} against {known.c} of n=52)" in explorer.numbers.value
    assert explorer.flips[""].description == f"{len(flipped)} flipped"
    explorer.flips["worse"].click()
    assert len(listed(explorer)) == known.c
    assert len(explorer.overview().axes[1].lines) > 3
    explorer.unpin.click()
    assert "pinned" not in explorer.numbers.value + explorer.pin_note.value
    assert len(listed(explorer)) == 52


def test_another_score_has_a_curve_and_no_line_of_its_own(explorer):
    explorer.pin.click()
    explorer.score.value = "log"
    assert "ghost" not in explorer.distribution.spec
    assert [entry["label"] for entry in explorer.trade_off.spec["legend"]][1] == "pinned"
    assert explorer.view.chosen == Chosen("flipped")


def test_another_run_is_compared_on_the_samples_of_both(explorer, scene_samples, benchmark_root):
    few = [s for s in scene_samples if s.id.startswith(("pope/", "vstar/"))]
    store_run("few", few, benchmark_root, failed=3)
    explorer = GatingExplorer("small", VIEW)
    explorer.pin.click()
    explorer.run.value = "few"
    assert explorer.view.pin.run == "small"
    assert explorer.comparison.n == len(few)
    assert listed(explorer) == set(explorer.decided["id"][explorer.decided["flip"] != ""])
    linked = GatingExplorer("small", VIEW)
    linked.open_link(explorer.page.fragment)
    assert linked.numbers.value == explorer.numbers.value
    explorer.run.value = "small"  # back at the pinned setting of this run: nothing flips
    explorer.threshold.value = VIEW.threshold
    assert listed(explorer) == set()
    explorer.task.value = "hr"
    assert explorer.comparison.n == 16


def test_a_pinned_setting_that_lacks_something_is_named_and_hides_nothing(explorer):
    fragment = links.fragment_of("small", replace(VIEW, pin=VIEW.pinned("small")))
    explorer.open_link(f"{fragment}&pin_k=4096")
    assert "not compared" in explorer.pin_note.value
    assert explorer.numbers.value
    assert len(gating.listed(explorer.decided, VIEW)) == 52
