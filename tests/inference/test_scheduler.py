"""The scheduler: every case through every station, one job at a time or many at once, and every second charged."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.inference.scheduler import Scheduler, Station


@dataclass(eq=False)
class Case:
    """Wants to visit these stations after the entrance."""

    wants: list[str]
    seen: list[str] = field(default_factory=list)
    charged_s: float = 0.0
    shares: list[float] = field(default_factory=list)


class Line:
    """Stations that note who came, in which jobs."""

    def __init__(self, sizes: dict[str, int], lanes: dict[str, str], during=lambda: None, **how) -> None:
        self.jobs: list[tuple[str, int]] = []
        self.live = self.most = 0
        self.during = during
        self.stations = [Station(n, lanes[n], s, self.work(n), self.take(n), **how) for n, s in sizes.items()]
        self.stations.append(Station("enter", "door", 1, self.work("enter"), self.take("enter"), brief=True))

    def work(self, name):
        def do(cases):
            self.jobs.append((name, len(cases)))
            began_s = time.perf_counter()
            self.during()
            return [(name, time.perf_counter() - began_s)] * len(cases)

        return do

    def take(self, name):
        def note(case, result, share):
            assert result[0] == name
            case.seen.append(name)
            case.charged_s += share * result[1]
            case.shares.append(share)
            if name == "enter":
                self.live += 1
                self.most = max(self.most, self.live)

        return note

    @staticmethod
    def where(case):
        return case.wants[len(case.seen) - 1] if len(case.seen) <= len(case.wants) else None

    def run(self, cases, **how):
        for case in Scheduler(self.stations, self.where, **how).run(cases):
            self.live -= 1
            yield case


NAMES = ("a", "b", "c")
SIZES = {"a": 3, "b": 1, "c": 2}
LANES = {"a": "x", "b": "y", "c": "x"}
WAYS = {"one at a time": {}, "concurrent": {"workers": {"x": 1, "y": 3, "door": 2}, "window": 7}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patient", [False, True])
@given(wants=st.lists(st.lists(st.sampled_from(NAMES), max_size=5), max_size=20))
@settings(max_examples=40, deadline=None)
def test_every_case_visits_what_it_wants_once_and_in_order(way, patient, wants):
    line = Line(SIZES, LANES, patient=patient)
    cases = [Case(want) for want in wants]
    assert set(line.run(cases, **WAYS[way])) == set(cases)
    assert [case.seen for case in cases] == [["enter", *want] for want in wants]
    assert all(size <= SIZES.get(name, 1) for name, size in line.jobs)
    if way == "concurrent":
        assert line.most <= 7


def test_jobs_that_run_at_once_share_the_clock_in_equal_parts():
    four_at_once = threading.Barrier(4, timeout=1800)
    line = Line({"a": 1}, {"a": "x"}, four_at_once.wait)
    cases = [Case(["a"]) for _ in range(4)]
    start = time.perf_counter()
    list(line.run(cases, workers={"x": 4, "door": 4}, window=4))
    clock_s = time.perf_counter() - start
    assert 0 < sum(case.charged_s for case in cases) <= clock_s


def test_what_a_job_did_beside_its_cases_is_charged_to_them_as_well():
    worked_s = []  # begin and end of every job

    def work(cases):
        began_s = time.perf_counter()
        time.sleep(0.002)
        worked_s.append((began_s, time.perf_counter()))
        return [("a", 1e-4)] * len(cases)  # a twentieth of the job

    line = Line({}, {})
    measured = {"measured": lambda cases, results: sum(seconds for _, seconds in results)}
    line.stations.insert(0, Station("a", "x", 2, work, line.take("a"), **measured))
    cases = [Case(["a"]) for _ in range(5)]
    list(line.run(cases, workers={"x": 1, "door": 1}))
    assert sum(case.charged_s for case in cases) >= sum(ended_s - began_s for began_s, ended_s in worked_s)


def test_a_case_counts_as_under_way_until_it_has_been_taken():
    arrived = taken = 0
    most = []

    def arrivals():
        nonlocal arrived
        for _ in range(20):
            arrived += 1
            most.append(arrived - taken)
            yield Case(["a"])

    line = Line({"a": 1}, {"a": "x"})
    for _ in line.run(arrivals(), workers={"x": 2, "door": 2}, window=3):
        taken += 1
    assert taken == 20
    assert max(most) == 3


def test_one_at_a_time_everything_is_charged_as_it_was_measured():
    cases = [Case(["a"]) for _ in range(4)]
    list(Line({"a": 2}, {"a": "x"}).run(cases))
    assert [case.shares for case in cases] == [[1.0, 1.0]] * 4


def test_a_patient_station_waits_for_a_full_job_while_more_may_come():
    line = Line({"a": 3}, {"a": "x"}, patient=True)
    list(line.run([Case(["a"]) for _ in range(7)]))
    assert [size for name, size in line.jobs if name == "a"] == [3, 3, 1]


def test_only_cases_that_are_alike_go_together():
    together = []
    line = Line({}, {})

    def work(cases):
        together.append({case.kind for case in cases})
        return [("a", 0.0)] * len(cases)

    alike = {"patient": True, "alike": lambda case: case.kind}
    line.stations.insert(0, Station("a", "x", 4, work, line.take("a"), **alike))
    cases = [Case(["a"]) for _ in range(8)]
    for number, case in enumerate(cases):
        case.kind = number % 2
    list(line.run(cases))
    assert all(len(kinds) == 1 for kinds in together)
    assert len(together) < 8  # and they do go together


@pytest.mark.parametrize("way", WAYS)
def test_what_a_job_raises_is_raised_where_the_cases_are_waited_for(way):
    line = Line(SIZES, LANES)
    line.stations[1] = Station("b", "y", 1, lambda cases: 1 / 0, line.take("b"))
    with pytest.raises(ZeroDivisionError):
        list(line.run([Case(["a", "b"]) for _ in range(4)], **WAYS[way]))


def test_stopping_early_waits_for_the_jobs_under_way_and_starts_no_other():
    line = Line(SIZES, LANES)
    running = line.run([Case(list("abc")) for _ in range(50)], **WAYS["concurrent"])
    next(running)
    running.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("lane-")]
    assert len(line.jobs) < 50 * 4
