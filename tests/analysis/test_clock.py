"""The A/A line: what two timings of one code say about the clock, and how far a speedup's interval reaches for it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import TASKS, make_run, write_answers, write_clock, write_verdicts

from speceyes_lib.analysis import clock, run_result, sample_frame
from speceyes_lib.analysis.summary import summarise
from speceyes_lib.params import FiguresParams
from speceyes_lib.report.formatting import clock_line
from speceyes_lib.runs import recorded_run
from speceyes_lib.stats.intervals import Estimate
from speceyes_lib.stats.resampling import Bootstrap

ARMS = ["collect", "baseline", "gated"]
SOME = list(TASKS[:2])
QUIET = {"session_s": 10.0, "cpu_s": 9.0, "others_cpu_s": 0.5}


def slower(record, factor: float):
    """The record with all of its seconds multiplied."""
    turns = tuple(t.model_copy(update={"turn_s": t.turn_s * factor}) for t in record.trajectory.turns)
    path = record.trajectory.model_copy(update={"turns": turns})
    times = {"decode_s": record.decode_s * factor, "tool_s": record.tool_s * factor}
    return record.model_copy(update=times | {"trajectory": path})


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A run whose agent alone was timed twice; how much slower the second time was, by place; None: no A/A line."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))

    def write(factor=None, timing=QUIET) -> recorded_run.RecordedRun:
        drawn, judged = make_run(per_task=16, tasks=SOME, failed=0)
        write_answers("r", {a: drawn[a] for a in ARMS}, {"agent_batch_size": 1, "batch_size": 4}, timing)
        write_verdicts("r", {a: judged[a] for a in ARMS})
        if factor:
            ids = list(drawn["baseline"])[::2]
            again = {id_: slower(drawn["baseline"][id_], factor(n)) for n, id_ in enumerate(ids)}
            write_clock("r", again, block=4)
        return recorded_run.open("r", tasks=SOME)

    return write


def speedup(recorded) -> dict:
    frame = sample_frame.samples(recorded, ARMS)
    return summarise(frame, bootstrap=Bootstrap(draws=200))["arms"]["gated"]


def test_equal_timings_have_no_drift_and_change_no_interval(store):
    recorded = store(lambda place: 1.0)
    aa = clock.drift(recorded)
    assert (aa["ratio"], aa["low"], aa["high"]) == pytest.approx((1, 1, 1))
    assert (aa["n"], aa["total"]) == (16, 32)
    without = sample_frame.samples(recorded, ARMS)
    del without.attrs["aa"]
    bare = summarise(without, bootstrap=Bootstrap(draws=200))["arms"]["gated"]["pooled"]
    assert speedup(recorded)["pooled"]["speedup_low"] == pytest.approx(bare["speedup_low"])


def test_a_second_timing_that_is_slower_is_a_drift_that_every_interval_contains(store):
    recorded = store(lambda place: 1.2)
    assert clock.drift(recorded)["ratio"] == pytest.approx(1 / 1.2)
    entries = speedup(recorded)
    for entry in (entries["pooled"], entries["average"], *entries["splits"].values()):
        assert entry["speedup_low"] < entry["speedup"] / 1.2
        assert entry["speedup_high"] > entry["speedup"] * 1.2
    check = clock.clock_check(recorded, ARMS)
    assert check["aa"]["drift_pct"] >= 20
    assert len(check["distrust"]) == 1
    assert "drift" in check["distrust"][0]


def test_drift_that_comes_and_goes_widens_small_parts_more_than_the_whole(store):
    recorded = store(lambda place: 1.3 if place % 4 < 2 else 0.8)
    aa = clock.drift(recorded)
    assert aa["low"] < aa["ratio"] < aa["high"]
    assert clock.reach(aa, 8) > clock.reach(aa, 16) > clock.reach(aa, 32)


def test_a_run_without_an_a_a_line_says_so_and_gives_no_warning(store):
    recorded = store(None, timing=None)
    assert clock.clock_check(recorded, ARMS) == {"aa": None, "load": {}, "cores": 0, "distrust": []}
    assert "no A/A line" in clock_line(clock.clock_check(recorded, ARMS))
    assert clock_line(None) == clock_line({}) == clock_line(clock.clock_check(recorded, ARMS))
    assert "WARNING" not in clock_line(None)
    assert clock_line(recorded) == clock_line(None)


@pytest.mark.parametrize(
    ("timing", "trusted"),
    [
        (QUIET, True),
        ({"session_s": 10.0, "cpu_s": 9.9, "others_cpu_s": 9.0}, False),  # both cores are busy
        ({"session_s": 10.0, "cpu_s": 19.9, "others_cpu_s": 0.0}, True),  # all of it by the run itself
        ({"session_s": 10.0, "cpu_s": 2.0, "others_cpu_s": 9.0}, True),  # there is room for both
        ({"session_s": 10.0, "cpu_s": 9.0}, True),  # not reported by the system
    ],
    ids=["quiet", "busy", "own", "room", "unknown"],
)
def test_the_load_of_other_processes_is_a_reason_for_distrust_where_it_fills_the_cores(
    store, timing, trusted
):
    check = clock.clock_check(store(lambda place: 1.0, timing), ARMS)
    assert (not check["distrust"]) == trusted
    assert set(check["load"]) == (set(ARMS) if "others_cpu_s" in timing else set())
    assert ("WARNING" in clock_line(check)) == (not trusted)


def test_the_summary_of_a_run_holds_the_check(store):
    store(lambda place: 1.2)
    params = FiguresParams(run="r", tasks=SOME, arms=ARMS, threshold_from="", bootstrap=100)
    summary = run_result.summarised(params).summary
    assert summary["clock_check"]["aa"]["n"] == 16
    assert summary["clock_check"]["distrust"]


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.2, 20),
    st.floats(1.0, 3),
    st.floats(1.0, 3),
    st.floats(0.7, 1.4),
    st.floats(1.0, 1.5),
    st.integers(1, 400),
)
def test_an_interval_with_drift_contains_both_the_one_without_and_the_drift(value, down, up, ratio, half, n):
    aa = {"ratio": ratio, "low": ratio / half, "high": ratio * half, "n": 40, "total": 400}
    plain = Estimate(value, value / down, value * up, n, "x")
    wide = clock.with_drift(plain, aa)
    factor = math.exp(clock.reach(aa, n))
    assert factor >= max(ratio, 1 / ratio) * (1 - 1e-9)
    slack = 1 + 1e-9
    assert wide.value == plain.value
    assert wide.low <= min(plain.low, value / factor) * slack
    assert wide.high >= max(plain.high, value * factor) / slack


def test_an_unknown_speedup_stays_unknown():
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    assert math.isnan(clock.with_drift(nothing, {"ratio": 1.0, "low": 0.9, "high": 1.1, "total": 9}).low)
