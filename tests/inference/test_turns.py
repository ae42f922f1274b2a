"""Stage folders in turns: who works when, what an interruption leaves, and that no order changes a record."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path

import pytest

from speceyes_lib.inference.funnel import Held
from speceyes_lib.inference.turns import GIVE_UP_AFTER, Meter, Work, take_turns
from speceyes_lib.runs.arms import in_clock_slice
from speceyes_lib.runs.records import DraftRecord, Failure
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.tasks.pictures import ImageRef
from speceyes_lib.tasks.sample import Sample

IDS = [f"task/split/{number}" for number in range(10)]


def sample(id_: str) -> Sample:
    return Sample(id_, "task", "split", id_, "?", None, "yes", ImageRef(Path("none.jpg")), {})


class Lab:
    """Folders that are worked on by stubs. `log` holds every result as (folder, number of the sample)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, []
        self.held: dict[str, int] = {}  # id -> how often it is held back

    def results(self, name: str, batch: int):
        """Results of samples in batches; the members of a batch know each other, as those of a model do."""

        def start(samples):
            for at in range(0, len(samples), batch):
                ids = [s.id for s in samples[at : at + batch]]
                for id_ in ids:
                    self.log.append((name, int(id_.rsplit("/")[-1])))
                    if self.held.get(id_, 0) > 0:
                        self.held[id_] -= 1
                        yield Held(id_, Failure(type="disk", message="full")), None
                    else:
                        yield DraftRecord(id=id_, status="ok", answer=" ".join(ids)), None

        return start

    def run(
        self, folders: dict[str, dict], block: int = 4, report=lambda: None, first: int = 0
    ) -> list[Work]:
        """Take turns. folders: name -> `batch`, and if they differ `ids` and `pauses`."""
        with ExitStack() as stack:
            works = []
            for name, how in folders.items():
                ids = how.get("ids", IDS)
                store = StageStore(
                    self.folder / name,
                    stage=name,
                    task=None,
                    record_type=DraftRecord,
                    config={},
                    expected_ids=ids,
                )
                store = stack.enter_context(store)
                todo = [sample(id_) for id_ in ids if id_ not in store.done_ids]
                results = self.results(name, how.get("batch", 1))
                works.append(Work(store, todo, results, how.get("pauses", True)))
            take_turns(works, IDS, block, report, first)
            return works

    def answers(self, work: Work) -> dict[str, str]:
        return {id_: record.answer for id_, record in work.store.records.items()}

    def turns(self) -> list[tuple[str, int]]:
        """The log as (folder, results in a row)."""
        return [(name, len(list(part))) for name, part in itertools.groupby(name for name, _ in self.log)]


@pytest.fixture
def lab(tmp_path) -> Lab:
    return Lab(tmp_path)


def test_every_folder_does_a_block_before_any_does_the_next_there_and_back(lab):
    works = lab.run({"a": {}, "b": {}, "c": {}})
    # a b c | c b a | then from the second on; two turns in a row of one folder stand together
    assert lab.turns() == [("a", 4), ("b", 4), ("c", 8), ("b", 4), ("a", 4), ("b", 2), ("c", 2), ("a", 2)]
    assert all(work.complete for work in works)


def test_the_order_goes_on_from_the_task_before(lab):
    lab.run({"a": {}, "b": {}, "c": {}}, first=3)
    assert [name for name, _ in lab.turns()][:2] == ["a", "c"]


@pytest.mark.parametrize("first", range(6))
def test_no_order_changes_a_record(tmp_path, first):
    folders = {"a": {"batch": 3}, "b": {"batch": 4}, "c": {"batch": 7}}
    together, alone = Lab(tmp_path / "together"), Lab(tmp_path / "alone")
    works = together.run(folders, first=first)
    for name, work in zip(folders, works, strict=True):
        assert together.answers(work) == alone.answers(alone.run({name: folders[name]})[0])


@pytest.mark.parametrize("n_results", range(1, 23, 3))
def test_a_run_killed_at_any_result_goes_on_and_ends_as_an_uninterrupted_one(tmp_path, n_results):
    class Killed(BaseException):
        pass

    counted = itertools.count(1)

    def report() -> None:
        if next(counted) == n_results:
            raise Killed

    folders = {"a": {}, "b": {}, "again": {"ids": IDS[1::3]}}
    lab, whole = Lab(tmp_path / "killed"), Lab(tmp_path / "whole")
    with pytest.raises(Killed):
        lab.run(folders, report=report)
    works = lab.run(folders)
    assert [lab.answers(w) for w in works] == [whole.answers(w) for w in whole.run(folders)]
    assert len(lab.log) == len(whole.log)  # nothing was done twice


def test_a_folder_that_is_behind_catches_up_before_the_others_go_on(lab):
    lab.run({"a": {}})
    lab.log.clear()
    lab.run({"a": {}, "b": {}})
    assert lab.turns() == [("b", 10)]


def test_a_slice_is_timed_in_the_rounds_of_its_samples(lab):
    lab.run({"a": {}, "again": {"ids": [IDS[1], IDS[6]]}})
    blocks = [(name, number // 4) for name, number in lab.log]
    assert [block for _, block in blocks] == sorted(block for _, block in blocks)
    assert [number for name, number in lab.log if name == "again"] == [1, 6]


def test_work_that_cannot_pause_is_done_in_its_first_turn(lab):
    lab.run({"a": {}, "threads": {"pauses": False}})
    assert lab.turns() == [("a", 4), ("threads", 10), ("a", 6)]


def test_samples_held_back_are_done_again_while_others_succeed(lab):
    lab.held = {IDS[2]: 1, IDS[5]: 99}
    (a, b) = lab.run({"a": {}, "b": {}})
    assert not a.complete
    assert set(a.held) == {IDS[5]}
    assert b.store.records.keys() | b.held.keys() == set(IDS)
    assert "9 of 10 samples are done" in a.fault
    assert "disk 1" in a.fault


def test_one_whose_samples_are_all_held_back_stops_all(tmp_path):
    lab = Lab(tmp_path)
    many = [f"task/split/{number}" for number in range(2 * GIVE_UP_AFTER)]
    lab.held = dict.fromkeys(many, 99)
    with StageStore(
        tmp_path / "a", stage="a", task=None, record_type=DraftRecord, config={}, expected_ids=many
    ) as store:
        work = Work(store, [sample(id_) for id_ in many], lab.results("a", 1))
        take_turns([work], many, 8, lambda: None)
    assert work.gone
    assert len(lab.log) == GIVE_UP_AFTER


def test_the_meter_counts_this_process_and_the_others_apart():
    meter = Meter()
    for _ in range(2):
        with meter:
            sum(number * number for number in range(200_000))
    assert 0 < meter.seconds["cpu_s"] <= meter.seconds["session_s"] * 1.5
    assert set(meter.seconds) <= {"session_s", "cpu_s", "others_cpu_s"}


def test_the_slice_that_is_timed_twice_depends_on_the_id_alone():
    ids = [f"hr/hr_bench_4k/{number}" for number in range(2000)]
    chosen = [id_ for id_ in ids if in_clock_slice(id_, 0.25)]
    assert 0.2 < len(chosen) / len(ids) < 0.3
    assert set(chosen) < {id_ for id_ in ids if in_clock_slice(id_, 0.5)}
    assert not any(in_clock_slice(id_, 0.0) for id_ in ids)
    assert all(in_clock_slice(id_, 1.0) for id_ in ids)
