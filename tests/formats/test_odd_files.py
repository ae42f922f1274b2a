"""Files that hold anything: whatever a line holds, it is a record or a problem, and the import ends, and ends again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_replies import ODD_JSON

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.formats import speceyes
from speceyes_lib.formats.common import Finder, Problems
from speceyes_lib.formats.importing import import_files
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord
from speceyes_lib.workflow.cli import main

ODD = (
    *ODD_JSON,
    *("-" + "9" * 5000, '"' + "x" * 3000 + '"', "[[[]]]", '[{"role": 1}]', '{"role": "assistant"}'),
    *("[" * 700 + "]" * 700, '{"a":' * 700 + "1" + "}" * 700, '[null, 1, "a"]'),
)
RESULT = {"image": "sa_0.jpg", "question": "What color is it?", "answer": "red", "pred_ans": "A"}
MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "look"}]},
    {"role": "assistant", "content": "A"},
]
LINES = {
    "speceyes": ("vstar_direct_attributes_DeepEyes-7B_Qwen3-VL-2B_8_min_0.98.jsonl", {
        "status": "success", "error": "", "small_answer": "A", "confidence_score": 0.5, "use_model": "large",
        "generated_length": 90, "judge_tc": "no", "print_messages": MESSAGES, "result": RESULT,
    }),
    "deepeyes": ("result_direct_attributes_qwen.jsonl", {
        **RESULT, "status": "success", "pred_output": MESSAGES, "acc": 1,
    }),
    "lmms-eval": ("d_samples_hrbench4k.jsonl", {
        "doc": {"index": 0, "question": "What?", "A": "x", "B": "y", "C": "z", "D": "w", "category": "single"},
        "target": "B", "filtered_resps": ["A"], "resps": [["A"]], "average": {"index": 0, "gpt_score": 0},
    }),
}  # fmt: skip
KEYS = {"speceyes": ("result", "image"), "deepeyes": ("image",), "lmms-eval": ("doc", "index")}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))


def odd_lines(line: dict, numbered: Callable[[dict, int], dict]) -> list[bytes]:
    """Lines of which one value at a time is another, and damaged bytes. `numbered`: the line of another sample."""
    lines: list[bytes] = []
    places = [(name,) for name in line]
    places += [(name, inner) for name, value in line.items() if isinstance(value, dict) for inner in value]
    for place in places:
        for value in ODD:
            marked = json.loads(json.dumps(numbered(line, len(lines))))
            parent = marked if len(place) == 1 else marked[place[0]]
            parent[place[-1]] = "@odd@"
            lines.append(json.dumps(marked).replace('"@odd@"', value).encode())
    rng = random.Random(0)
    for _ in range(60):
        raw = bytearray(json.dumps(numbered(line, len(lines))).encode())
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.choice(b'\x00\xff"{}[],:9\\eu')
        lines.append(bytes(raw).replace(b"\n", b" "))
    return lines


def numbered(source: str, line: dict, number: int) -> dict:
    if source == "speceyes":
        return line | {"result": line["result"] | {"image": f"sa_{number}.jpg"}}
    if source == "deepeyes":
        return line | {"image": f"sa_{number}.jpg"}
    return line | {"doc": line["doc"] | {"index": number}}


@pytest.mark.parametrize("source", LINES)
def test_any_line_is_a_record_or_a_problem_at_every_import(tmp_path, source):
    name, line = LINES[source]
    lines = odd_lines(line, lambda line, number: numbered(source, line, number))
    assert len(lines) > 200
    (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
    first, problems = import_files(source, [tmp_path / name], "r")
    [part] = first["r"]
    assert {p.line for p in problems} | set(range(1, len(lines) + 1)) == set(range(1, len(lines) + 1))
    assert len(part.records) + len({p.line for p in problems}) >= len(lines)
    assert len(part.records) > 100
    assert len(problems) > 20
    assert all(len(str(p)) < 700 for p in problems)
    again, same = import_files(source, [tmp_path / name], "r")
    assert [str(p) for p in same] == [str(p) for p in problems]
    stored = read_stage("r", part.stage, part.task, AgentRecord).records
    assert list(stored) == list(part.records) == list(again["r"][0].records)


JUDGED = {
    "all_acc": 50.0, "small_acc": 50.0, "all_cnt": 2, "yes_cnt": 1, "no_cnt": 1, "confidence_scores": {"10": 0.5},
    "error_preds": [{"result": RESULT, "spec_reason_info": "", "print_messages": []}],
    "confidence_scores_wrong": [0.5], "confidence_scores_right": [0.4],
    "conf_infos": {"min": {"right": [], "wrong": []}},
}  # fmt: skip


@pytest.mark.parametrize("field", [*JUDGED, "latency"])
def test_any_judges_file_and_any_summary_of_seconds_leave_the_answers_readable(tmp_path, field):
    name, line = LINES["speceyes"]
    two = [line, line | {"result": RESULT | {"image": "sa_1.jpg", "pred_ans": "some red"}}]
    (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in two))
    for value in ODD:
        text = json.dumps(JUDGED | {field: "@odd@"}).replace('"@odd@"', value)
        if field == "latency":
            (tmp_path / "latency_summary.json").write_text(f'{{"{name}": {value}}}')
        else:
            (tmp_path / name.replace(".jsonl", "_acc.jsonl")).write_text(text)
        [part] = speceyes.read([tmp_path], Finder(None), Problems())[""]
        assert len(part.records) == 2
        json.dumps(part.judged, allow_nan=False)
    import_files("speceyes", [tmp_path], "r")


def test_entries_of_wrong_answers_are_unwrapped(tmp_path):
    name, line = LINES["speceyes"]
    wordy = [line | {"result": RESULT | {"image": f"sa_{i}.jpg", "pred_ans": "some red"}} for i in range(3)]
    (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in wordy))
    wrong = [{"result": wordy[1]["result"], "spec_reason_info": "", "print_messages": MESSAGES}]
    sums = {"all_acc": 200 / 3, "all_cnt": 3, "error_preds": wrong}
    (tmp_path / name.replace(".jsonl", "_acc.jsonl")).write_text(json.dumps(sums))
    runs, problems = import_files("speceyes", [tmp_path], "r")
    [part] = runs["r"]
    assert problems == []
    assert list(part.verdicts["final"].values()) == [
        ("right", "judge_error_preds"), ("wrong", "judge_error_preds"), ("right", "judge_error_preds"),
    ]  # fmt: skip


def test_an_empty_draft_with_a_confidence_was_rejected_and_one_without_failed(tmp_path):
    name, line = LINES["speceyes"]
    plays = [("", 0.5, "no"), ("", 0.0, "no"), ("", float("nan"), "no"), ("", -1, "yes"), ("B", 0.4, "no")]
    lines = [
        numbered("speceyes", line, i) | {"small_answer": text, "confidence_score": score, "judge_tc": router}
        for i, (text, score, router) in enumerate(plays)
    ]
    (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in lines))
    runs, _ = import_files("speceyes", [tmp_path], "r")
    records = list(runs["r"][0].records.values())
    decisions = ["rejected", "draft_failed", "draft_failed", "routed", "rejected"]
    assert [r.decision for r in records] == decisions
    assert [r.confidence for r in records] == [0.5, None, None, None, 0.4]
    assert [r.draft and r.draft.answer for r in records] == [None, None, None, None, "B"]


TABLE = "index\tquestion\tA\tB\tanswer\tcategory\tprediction\thit\n"


@pytest.mark.parametrize(
    ("rows", "kept", "lines"),
    [
        ("1\tQ\tx\ty\tA\tsingle\tA\t1\n2\tQ\tx\ty\tA\tsingle\t\0\t1e999\n", 2, []),
        (
            '1\tQ\tx\ty\tA\tsingle\tA\t1\n2\tQ\tx\ty\tA\tsingle\t"never closed\t1\n3\tQ\tx\ty\tA\tsingle\tA\t1\n',
            1,
            [2],
        ),
        ("1\tQ\tx\ty\tA\tsingle\tA\t" + "9" * 6000 + "\n", 1, []),
        ("1\tQ\tx\ty\tA\tsingle\tA\u2028B\t1\n", 1, []),
    ],
)
def test_odd_tables(tmp_path, rows, kept, lines):
    path = tmp_path / "model_HRBench4K.tsv"
    path.write_text(TABLE + rows, "utf-8")
    for _ in range(2):
        runs, problems = import_files("vlmevalkit", [path], "r")
        assert len(runs["r"][0].records) == kept
        assert [p.line for p in problems] == lines


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"\xd0\xcf\x11\xe0 no zip", "index\tprediction\n".encode("utf-16")]
)
@pytest.mark.parametrize("suffix", [".tsv", ".xlsx"])
def test_files_that_are_no_tables_are_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"model_HRBench4K{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match="model_HRBench4K"):
        import_files("vlmevalkit", [path], "r")


@pytest.mark.parametrize("name", ["../x", "a/b", "", " x", ".x", "x" * 300, "a\0b", "a\nb", "C:x", "\ud835"])
def test_a_run_is_named_like_a_folder(tmp_path, name, capsys):
    file, line = LINES["deepeyes"]
    (tmp_path / file).write_text(json.dumps(line) + "\n")
    assert main(["import", "deepeyes", str(tmp_path / file), "--run", name]) == 2
    assert "must be a plain folder name" in capsys.readouterr().err
    with pytest.raises(UserError, match="must be a plain folder name"):
        import_files("deepeyes", [tmp_path / file], name)
    assert not list(tmp_path.glob("**/manifest.json"))
    assert not list(Path(tmp_path).parent.glob("x"))
