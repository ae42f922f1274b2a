"""Training runs of verl are read back as they were written, and what cannot be read is named."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.errors import DataError
from speceyes_lib.formats.verl_logs import read_training
from speceyes_lib.runs.event_files import read_scalars

WRITTEN = Path(__file__).parent / "verl"  # event files that TensorBoard 2.21 wrote
TRUTH = {
    0: {"val-core/vstar/acc/mean@1": 0.55},
    1: {"critic/score/mean": 0.25, "actor/pg_loss": -0.125, "num_turns/mean": 2.5},
    2: {"critic/score/mean": 0.5, "actor/pg_loss": math.nan, "num_turns/mean": 3.0},
}


def numbers(log) -> dict[int, dict[str, float]]:
    by_step: dict[int, dict[str, float]] = {}
    for row in log.metrics.itertuples():
        by_step.setdefault(row.step, {})[row.key] = row.value
    return by_step


def same(log, truth=TRUTH) -> bool:
    read = numbers(log)
    return read.keys() == truth.keys() and all(
        read[step].keys() == truth[step].keys()
        and np.array_equal([read[step][k] for k in truth[step]], list(truth[step].values()), equal_nan=True)
        for step in truth
    )


def console_line(step: int, data: dict, value=repr) -> str:
    return " - ".join([f"step:{step}", *(f"{key}:{value(number)}" for key, number in data.items())])


# how versions and their surroundings print the same line
CONSOLES = {
    "verl 0.6": lambda s, d: console_line(s, d),
    "three decimals": lambda s, d: console_line(s, d, lambda v: f"{v:.3f}"),
    "verl 0.9, numpy 2": lambda s, d: console_line(s, d, lambda v: f"np.float64({v!r})"),
    "ray": lambda s, d: f"(TaskRunner pid=4711) {console_line(s, d)}",
    "ray, coloured": lambda s, d: (
        f"\x1b[36m(TaskRunner pid=4711, ip=10.0.0.1)\x1b[0m {console_line(s, d)}\x1b[0m"
    ),
    "repeated": lambda s, d: f"(TaskRunner pid=4711) {console_line(s, d)} [repeated 3x across cluster]",
    "after a progress bar": lambda s, d: f"Training:  3%|#   | 1/32\r{console_line(s, d)}",
    "0.9's name": lambda s, d: console_line(
        s, {k.replace("num_turns/", "training/num_turns/"): v for k, v in d.items()}
    ),
}


@pytest.mark.parametrize("how", CONSOLES)
def test_a_console_log_is_read_however_it_was_printed(how, tmp_path):
    lines = [
        "Starting",
        *(CONSOLES[how](step, data) for step, data in TRUTH.items()),
        "WARNING global_step:7 - no metric:1",
    ]
    (tmp_path / "run.log").write_text("\n".join(lines) + "\n", "utf-8")
    log = read_training(tmp_path / "run.log")
    truth = TRUTH
    if how == "three decimals":
        truth = {step: {k: round(v, 3) for k, v in data.items()} for step, data in TRUTH.items()}
    assert same(log, truth)
    assert not log.problems


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x1b"), min_size=1, max_size=12).filter(
    lambda key: key.strip() == key and ":" not in key and "step" not in key and " - " not in f" {key} "
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.floats(), min_size=1, max_size=5), st.integers(0, 10**9))
def test_any_names_and_numbers_come_back_from_a_console_line(tmp_path_factory, data, step):
    file = tmp_path_factory.mktemp("c") / "x.log"
    file.write_bytes((console_line(step, data) + "\n").encode())
    log = read_training(file)
    assert not log.problems
    assert same(log, {step: data})


def test_the_file_logger_is_read_and_null_is_nan(tmp_path):
    lines = [{"step": s, "data": {k: None if v != v else v for k, v in d.items()}} for s, d in TRUTH.items()]
    (tmp_path / "deepeyes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert same(read_training(tmp_path))


def test_event_files_of_the_real_library_are_read_and_stitched():
    torch, newer = sorted(WRITTEN.iterdir())
    tags = {(s.step, s.tag): s.value for s in read_scalars(torch)}
    assert tags[2, "critic/score/mean"] == 0.5
    assert tags[3, "actor/pg_loss"] == -0.375
    assert "val/generations" not in {tag for _, tag in tags}
    assert [s[1:] for s in read_scalars(newer)] == [
        (3, "critic/score/mean", 1.5),
        (4, "critic/score/mean", 2.0),
    ]
    read = numbers(read_training(WRITTEN))  # the second file begins at step 3 and counts from there on
    assert read[2] == {
        "critic/score/mean": 0.5,
        "actor/entropy": 0.25,
        "num_turns/mean": 4.0,
        "actor/pg_loss": -0.25,
    }
    assert (read[3], read[4]) == ({"critic/score/mean": 1.5}, {"critic/score/mean": 2.0})


@pytest.mark.parametrize("cut", [1, 5, 13, 60])
def test_a_cut_off_event_file_is_read_up_to_its_end(cut, tmp_path):
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(sorted(WRITTEN.iterdir())[0].read_bytes()[:-cut])
    log = read_training(tmp_path)
    assert numbers(log)[2]["critic/score/mean"] == 0.5
    assert "cut off" in str(log.problems[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 789), st.integers(1, 255))
def test_a_changed_byte_of_an_event_file_is_found(tmp_path_factory, at, change):
    data = bytearray(sorted(WRITTEN.iterdir())[0].read_bytes())
    data[at] ^= change
    file = tmp_path_factory.mktemp("e") / "events.out.tfevents.1"
    file.write_bytes(data)
    try:
        reported = "; ".join(map(str, read_training(file).problems))
    except DataError as error:  # nothing is left to read
        reported = str(error)
    assert "damaged" in reported or "cut off" in reported


def test_after_a_restart_the_later_lines_count(tmp_path):
    steps = [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25), (3, 0.35)]
    (tmp_path / "run.log").write_text("".join(console_line(s, {"a": v}) + "\n" for s, v in steps))
    log = read_training(tmp_path)
    assert numbers(log) == {1: {"a": 0.1}, 2: {"a": 0.25}, 3: {"a": 0.35}}
    assert "line 4: step 2 comes again after step 3" in str(log.problems[0])


def test_a_validation_line_of_the_same_step_is_no_restart(tmp_path):
    (tmp_path / "run.log").write_text("step:1 - a:0.1\nstep:1 - val-core/x/acc/mean@1:0.5\n")
    log = read_training(tmp_path)
    assert (numbers(log), log.problems) == ({1: {"a": 0.1, "val-core/x/acc/mean@1": 0.5}}, [])


def test_console_logs_of_several_starts_are_put_together(tmp_path):
    for i, (name, steps) in enumerate({"b.log": (1, 2, 3), "a.log": (3, 4)}.items()):
        (tmp_path / name).write_text("".join(console_line(s, {"a": float(s + 10 * i)}) + "\n" for s in steps))
        os.utime(tmp_path / name, (i, i))
    assert numbers(read_training(tmp_path)) == {1: {"a": 1.0}, 2: {"a": 2.0}, 3: {"a": 13.0}, 4: {"a": 14.0}}


def test_a_line_that_is_cut_off_loses_its_last_number_only(tmp_path):
    (tmp_path / "run.log").write_text("step:1 - a:0.1 - b:0.2\nstep:2 - a:0.15 - b:0.2")
    log = read_training(tmp_path)
    assert numbers(log) == {1: {"a": 0.1, "b": 0.2}, 2: {"a": 0.15}}
    assert "ends within a line" in str(log.problems[0])


def test_files_of_one_run_fill_each_other_up_and_two_runs_are_refused(tmp_path):
    (tmp_path / "run.log").write_text("step:1 - a:0.333 - b:2.0\nstep:2 - a:0.667 - b:3.0\n")
    (tmp_path / "x.jsonl").write_text('{"step": 2, "data": {"a": 0.6666, "b": 3.0}}\n')
    assert numbers(read_training(tmp_path)) == {1: {"a": 0.333, "b": 2.0}, 2: {"a": 0.6666, "b": 3.0}}
    (tmp_path / "x.jsonl").write_text('{"step": 2, "data": {"a": 0.1, "b": 7.0}}\n')
    with pytest.raises(DataError, match="are of two runs: of 2 numbers that both hold 2 differ"):
        read_training(tmp_path)
    (tmp_path / "y.jsonl").write_text('{"step": 2, "data": {"a": 0.1}}\n')
    with pytest.raises(DataError, match=r"several runs \(x.jsonl, y.jsonl\)"):
        read_training(tmp_path)


def trajectory(**fields) -> dict:
    return {
        "input": "q",
        "output": "<think>a</think><answer>red</answer>",
        "gts": "red",
        "score": 0.8,
        "step": 1,
        **fields,
    }


def write_dump(folder: Path, step: int, rows: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_dumps_are_read_with_scores_taken_apart_and_calls_counted(tmp_path):
    call = "<tool_call>{}</tool_call>\nuser\n<tool_response>\n{}\n</tool_response>\nassistant\n"
    zoomed = call.format("{}", "The box.") + call.format("{}", "Error: too small") + "<answer>red</answer>"
    rows = [trajectory(), trajectory(output=zoomed, score=2.0), trajectory(score=-0.2), trajectory(score=0.5)]
    write_dump(tmp_path, 1, rows)
    table = read_training(tmp_path).rollouts
    assert table[["calls_written", "replies", "failed_replies"]].loc[1].tolist() == [2, 2, 1]
    assert table["right"].tolist()[:3] == [1, 1, 0]
    assert table["tool"].tolist()[:3] == [0, 1, 0]
    assert pd.isna(table.loc[3, "right"])  # no score of this reward


@pytest.mark.parametrize("version", ["0.6", "0.7", "0.8", "0.9"])
def test_the_dumps_of_four_versions_have_their_groups(version, tmp_path):
    prompts = [p for p in ("p", "q") for _ in range(4)]
    rows = [trajectory(input=p, score=0.8) for p in prompts]
    if version == "0.9":
        rows = [
            row | {"input": "same", "uid": f"{p}_{i}_0"}
            for i, (p, row) in enumerate(zip(prompts, rows, strict=True))
        ]
    else:
        rows = [row | {"acc": row["score"], "request_id": str(i)} for i, row in enumerate(rows)]
    write_dump(tmp_path, 1, rows)
    table = read_training(tmp_path).rollouts
    assert table["group"].tolist() == [0.0] * 4 + [1.0] * 4
    assert set(table["set"]) == {"train"}


def test_equal_questions_about_different_pictures_have_no_group(tmp_path):
    write_dump(tmp_path, 1, [trajectory(input=p) for p in "aaaabbbbccccccccdddd"])
    log = read_training(tmp_path)
    assert log.rollouts.groupby("input")["group"].apply(lambda g: g.isna().all()).to_dict() == {
        "a": False, "b": False, "c": True, "d": False,
    }  # fmt: skip
    assert "1 prompts occur more than 4 times" in str(log.problems[0])


def test_odd_rows_of_a_dump_are_named_and_the_rest_is_kept(tmp_path):
    rows = [
        trajectory(),
        trajectory(score="x"),
        trajectory(output=None),
        trajectory(score=float("nan"), extra=[1]),
    ]
    write_dump(tmp_path, 1, rows)
    write_dump(tmp_path, 2, [])
    log = read_training(tmp_path)
    assert len(log.rollouts) == 1
    assert [p.line for p in log.problems] == [2, 3, 4, None]
    assert "holds no trajectory" in str(log.problems[-1])


def test_a_file_that_begins_again_names_what_was_left_out(tmp_path):
    for i, name in enumerate(("a.log", "b.log")):
        (tmp_path / name).write_text("".join(console_line(s, {"a": float(s)}) + "\n" for s in (1, 2, 3)))
        os.utime(tmp_path / name, (i, i))
    log = read_training(tmp_path)
    assert numbers(log) == {step: {"a": float(step)} for step in (1, 2, 3)}
    assert "b.log: begins at step 1, and 3 steps of earlier files" in str(log.problems[0])
    assert "if the files are of two runs, name one of them" in str(log.problems[0])


def test_dumps_of_two_runs_are_refused(tmp_path):
    for name in ("one", "two"):
        write_dump(tmp_path / name, 4, [trajectory(step=4)])
    with pytest.raises(DataError, match=r"two/4\.jsonl and .*one/4\.jsonl both hold trajectories of step 4"):
        read_training(tmp_path)


def test_validation_dumps_are_kept_apart(tmp_path):
    write_dump(tmp_path / "train", 1, [trajectory()])
    write_dump(tmp_path / "val", 1, [trajectory(reward=0.8)])
    assert read_training(tmp_path).rollouts["set"].tolist() == ["train", "val"]


@pytest.mark.parametrize(
    "content", [b"", b"epoch 1 loss 0.3\n", b"\x00\x01\xff" * 50, b"step:1 - nothing here\n"]
)
def test_a_file_of_another_program_is_refused_with_what_was_expected(content, tmp_path):
    (tmp_path / "other.log").write_bytes(content)
    with pytest.raises(DataError, match=r"holds no metrics and no trajectories.*step:1 - key:value"):
        read_training(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        read_training(tmp_path / "none")


def test_a_table_with_a_column_per_key(tmp_path):
    shutil.copy(sorted(WRITTEN.iterdir())[0], tmp_path)
    wide = read_training(tmp_path).wide()
    assert wide["num_turns/mean"].to_dict() == {1: 3.0, 2: 4.0, 3: 5.0}
