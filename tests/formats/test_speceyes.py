"""The original's files: names, lines, judges, and the way there and back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import write_answers, write_run

from speceyes_lib.errors import ConfigError, DataError, StageError
from speceyes_lib.formats.common import Finder, LineError, Problems
from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes import Name, parse_name
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.gating.separability import PAPER_SCORES
from speceyes_lib.paths import runs_dir
from speceyes_lib.runs.reading import read_manifest, read_stage
from speceyes_lib.runs.records import AgentRecord, DraftRecord, JudgedRecord
from speceyes_lib.tasks import registry
from speceyes_lib.tasks.sample import ShownOptions
from speceyes_lib.workflow.cli import main

TASK = "vstar/direct_attributes"
STEM = "vstar_direct_attributes_DeepEyes-7B"
BASELINE = f"{STEM}_baseline_1_None_None"
GATED = f"{STEM}_Qwen3-VL-2B_8_min_0.98"
DRAFTS = "vstar_direct_attributes_Qwen3-VL-2B_8"


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def result(number: int, pred: str, answer: str = "red") -> dict:
    question = f"What is the color of flag {number}?"
    return {"image": f"sa_{number}.jpg", "question": question, "answer": answer, "pred_ans": pred}


def line(number: int, pred: str, **fields) -> dict:
    entry = {
        "status": "success",
        "error": "",
        "small_answer": "",
        "confidence_score": -1,
        "use_model": "large",
        "generated_length": 90,
        "judge_tc": "yes",
        "print_messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"}]},
            {"role": "assistant", "content": '<tool_call>{"name": "image_zoom_in_tool"}</tool_call>'},
            {"role": "assistant", "content": [{"type": "text", "text": f"<answer>{pred}</answer>"}]},
        ],
        "result": result(number, pred),
    }
    return entry | fields


ACCEPTED = {
    "small_answer": "A",
    "confidence_score": 0.991,
    "use_model": "small",
    "generated_length": 2,
    "judge_tc": "no",
}
REJECTED = {"small_answer": "B", "confidence_score": 0.4, "judge_tc": "no"}
GATED_LINES = [
    line(1, "A", **ACCEPTED),
    line(2, "A. red", **REJECTED),
    line(3, "B"),
    line(4, "", status="error", error="CUDA out of memory", use_model=None, small_answer=None),
    line(5, "It is red.", **REJECTED | {"confidence_score": float("-inf")}),
]


def write(path: Path, lines: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [item if isinstance(item, str) else json.dumps(item) for item in lines]  # NaN as Python writes it
    path.write_text("\n".join(text) + "\n", "utf-8")
    return path


def read(run: str, stage: str, kind: type, task: str = TASK) -> dict:
    return {i.rsplit("/", 1)[1]: r for i, r in read_stage(run, stage, task, kind).records.items()}


def refuse(constant: str):
    raise AssertionError(f"{constant} in a result file")


def assert_standard_json(folder: Path) -> int:
    """Every JSON file below a folder is JSON by the standard; returns how many values were read."""
    n = 0
    for path in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        text = path.read_text("utf-8")
        texts = [text] if path.suffix == ".json" or text.startswith("{\n") else text.splitlines()
        for one in texts:
            json.loads(one, parse_constant=refuse)
            n += 1
    return n


# ------------------------------------------------------------------------------------------- file names


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        (GATED, Name(TASK, "DeepEyes-7B", "Qwen3-VL-2B", 8, "min", 0.98)),
        (BASELINE, Name(TASK, "DeepEyes-7B", "baseline", 1)),
        (DRAFTS, Name(TASK, None, "Qwen3-VL-2B", 8)),
        (f"{GATED}_K=96", Name(TASK, "DeepEyes-7B", "Qwen3-VL-2B", 8, "min", 0.98, k=96)),
        (f"{GATED}_PhaseIMs", Name(TASK, "DeepEyes-7B", "Qwen3-VL-2B", 8, "min", 0.98, small_routes=True)),
        (
            f"{GATED}_K=32_PhaseIMs",
            Name(TASK, "DeepEyes-7B", "Qwen3-VL-2B", 8, "min", 0.98, k=32, small_routes=True),
        ),
        (
            "hr_hr_bench_4k_Thyme-RL_Qwen3-VL-2B_8_bottom20_0.97",
            Name("hr/hr_bench_4k", "Thyme-RL", "Qwen3-VL-2B", 8, "bottom20", 0.97),
        ),
        ("pope_random_Thyme-RL_baseline_1_None_None", Name("pope/random", "Thyme-RL", "baseline", 1)),
        ("pope_popular_a_b_8_specreason_7", Name("pope/popular", "a", "b", 8, "specreason", 7)),
        ("pope_popular_a_b_16_log_0.5", Name("pope/popular", "a", "b", 16, "log", 0.5)),
    ],
)
def test_file_names_are_read_and_written_the_same(stem, name):
    assert parse_name(stem) == name
    assert name.stem == stem


@pytest.mark.parametrize(
    "stem", ["", "latency", "vstar_unknown_a_b_8_min_0.9", "vstar_direct_attributes", f"{STEM}_x_8_max_0.98"]
)
def test_other_file_names_are_refused(stem):
    with pytest.raises(LineError):
        parse_name(stem)


# ----------------------------------------------------------------------------------------------- reading


def test_every_kind_of_line_becomes_its_record(tmp_path):
    write(tmp_path / "in" / f"{GATED}.jsonl", GATED_LINES)
    runs, problems = import_files("speceyes", [tmp_path / "in"], "r")
    assert problems == []
    assert list(runs) == ["r"]
    got = read("r", "02_gated", AgentRecord)
    assert {k: r.decision for k, r in got.items()} == {
        "sa_1": "accepted", "sa_2": "rejected", "sa_3": "routed", "sa_4": "routed", "sa_5": "rejected",
    }  # fmt: skip
    assert (got["sa_1"].answer, got["sa_1"].used, got["sa_1"].confidence) == ("A", "small", 0.991)
    assert (got["sa_1"].draft.n_tokens, got["sa_1"].trajectory) == (2, None)
    assert got["sa_2"].draft.answer == "B"
    assert got["sa_2"].draft.scores == {"min": 0.4}
    assert [t.action for t in got["sa_2"].trajectory.turns] == ["tool", "answer"]
    assert got["sa_2"].trajectory.generated_tokens == 90
    assert got["sa_3"].draft is None
    assert got["sa_3"].confidence is None
    assert got["sa_3"].router.verdict == "yes"
    assert (got["sa_4"].status, got["sa_4"].error.message) == ("error", "CUDA out of memory")
    assert got["sa_5"].confidence is None
    assert got["sa_5"].draft.score_reason == "non_finite"
    config = read_manifest("r", "02_gated", TASK).config
    assert (config["score"], config["threshold"], config["k"], config["router"]) == ("min", 0.98, 64, "large")


def test_times_that_are_not_in_the_files_are_unknown_and_totals_are_kept(tmp_path):
    write(tmp_path / f"{BASELINE}.jsonl", [line(1, "A")])
    (tmp_path / "latency_summary.json").write_text(json.dumps({f"{BASELINE}.jsonl": 12.5, "other": 1}))
    import_files("speceyes", [tmp_path], "r")
    assert math.isnan(read("r", "02_baseline", AgentRecord)["sa_1"].wall_s)
    assert read_manifest("r", "02_baseline", TASK).timing == {"wall_s": 12.5}


def test_unreadable_lines_are_reported_with_file_and_line_and_the_rest_is_kept(tmp_path):
    lines = [
        line(1, "A", **ACCEPTED),
        '{"status": "success", "resu',
        "[1, 2]",
        line(2, "B", **ACCEPTED | {"use_model": "medium"}),
        {k: v for k, v in line(3, "B").items() if k != "result"},
        line(1, "B"),
        line(6, "B", status="maybe"),
        line(7, "B"),
    ]
    path = write(tmp_path / f"{GATED}.jsonl", lines)
    with path.open("ab") as file:
        file.write(b'\n{"caf\xe9": 1}\n')
    _, problems = import_files("speceyes", [path], "r")
    assert list(read("r", "02_gated", AgentRecord)) == ["sa_1", "sa_7"]
    assert [p.line for p in problems] == [2, 3, 4, 5, 6, 7, 10]
    words = (
        "not valid JSON",
        "found list",
        "use_model",
        "'result'",
        "occurs twice",
        "'status'",
        "not valid JSON",
    )
    for problem, word in zip(problems, words, strict=True):
        assert word in problem.what
        assert f"{GATED}.jsonl, line {problem.line}: " in str(problem)


def test_drafts_carry_four_scores_and_lack_those_that_are_not_finite(tmp_path):
    infos = {"log": 0.9, "min": float("nan"), "mean": 0.97, "bottom20": float("-inf")}
    plain = {"status": "success", "error": None, "generated_length": 2, "result": result(1, "A")}
    write(tmp_path / f"{DRAFTS}.jsonl", [plain | {"confidence_score_infos": infos}])
    assert "NaN" in (tmp_path / f"{DRAFTS}.jsonl").read_text()
    import_files("speceyes", [tmp_path], "r")
    [draft] = read("r", "01_draft", DraftRecord).values()
    assert draft.scores == {"log": 0.9, "mean": 0.97}
    assert draft.score_reason == "non_finite"


def test_drafts_and_baseline_make_the_arm_that_thresholds_are_analysed_on(tmp_path):
    infos = dict.fromkeys(("log", "min", "mean", "bottom20"), 0.9)
    drafts = [
        {
            "status": "success",
            "result": result(i, "A"),
            "generated_length": 2,
            "confidence_score_infos": infos,
        }
        for i in (1, 2, 3, 9)
    ]
    write(tmp_path / f"{DRAFTS}.jsonl", drafts)
    write(tmp_path / f"{BASELINE}.jsonl", [line(i, "B", judge_tc=None) for i in (1, 2, 3)])
    write(tmp_path / f"{GATED}.jsonl", GATED_LINES)
    _, problems = import_files("speceyes", [tmp_path], "r")
    got = read("r", "02_collect", AgentRecord)
    assert list(got) == ["sa_1", "sa_2", "sa_3"]
    assert {r.draft.answer for r in got.values()} == {"A"}
    assert {r.answer for r in got.values()} == {"B"}
    assert [r.router.verdict for r in got.values()] == ["no", "no", "yes"]  # those of the gated run
    assert ["1 samples are missing in the drafts or in the baseline" in p.what for p in problems] == [True]


def test_each_gated_setting_becomes_a_run_with_the_baseline_in_it(tmp_path):
    for stem in (GATED, f"{GATED}_K=96", GATED.replace("0.98", "0.9")):
        write(tmp_path / f"{stem}.jsonl", GATED_LINES)
    write(tmp_path / f"{BASELINE}.jsonl", [line(1, "A")])
    runs, _ = import_files("speceyes", [tmp_path], "r")
    assert sorted(runs) == [f"r_DeepEyes-7B_Qwen3-VL-2B_8_min_{s}" for s in ("0.9", "0.98", "0.98_K=96")]
    for run in runs:
        assert list(read(run, "02_baseline", AgentRecord)) == ["sa_1"]
    assert read_manifest("r_DeepEyes-7B_Qwen3-VL-2B_8_min_0.98_K=96", "02_gated", TASK).config["k"] == 96


def test_a_run_that_holds_something_else_is_not_overwritten_unless_replace_is_set(tmp_path):
    write(tmp_path / f"{GATED}.jsonl", GATED_LINES)
    import_files("speceyes", [tmp_path], "r")
    import_files("speceyes", [tmp_path], "r")  # the same again is fine
    write(tmp_path / f"{GATED}.jsonl", GATED_LINES[:1])
    with pytest.raises(StageError, match="restart"):
        import_files("speceyes", [tmp_path], "r")
    import_files("speceyes", [tmp_path], "r", replace=True)
    assert len(read("r", "02_gated", AgentRecord)) == 1


def test_files_that_are_no_results_at_all_are_an_error(tmp_path):
    write(tmp_path / "notes.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match=r"nothing.*\n.*notes.jsonl: the original does not write"):
        import_files("speceyes", [tmp_path], "r")
    with pytest.raises(DataError, match="no such file"):
        import_files("speceyes", [tmp_path / "nowhere"], "r")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["success", "A", "yes", "small"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(line(1, "A"))), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    changed=st.dictionaries(st.sampled_from([*line(1, "A"), "image", "pred_ans"]), json_values, max_size=4)
)
@settings(max_examples=150, deadline=None)
def test_any_line_becomes_a_record_or_a_problem(tmp_path_factory, changed):
    from speceyes_lib.formats import speceyes

    odd = line(1, "A", **ACCEPTED) | changed
    if isinstance(odd["result"], dict):
        odd["result"] |= {k: v for k, v in changed.items() if k in ("image", "pred_ans")}
    path = write(tmp_path_factory.mktemp("odd") / f"{GATED}.jsonl", [odd, line(2, "B")])
    problems = Problems()
    [part] = speceyes.read([path], Finder(None), problems)[""]
    assert f"{TASK}/sa_2" in part.records or problems
    assert len(part.records) + len(problems) == 2
    assert all(p.line in (1, 2) for p in problems)


# ----------------------------------------------------------------------------------------------- judging

JUDGE = {
    "all_acc": 75.0, "small_acc": 100.0, "large_acc": float("nan"), "small_tokens": 2.0, "large_tokens": 90.0,
    "tokens_per_second": 10.0, "all_cnt": 4, "small_cnt": 1, "small_ratio": 25.0, "large_cnt": 3, "yes_cnt": 2,
    "no_cnt": 3, "error_preds": [], "confidence_scores": [0.4, 0.991],
    "confidence_scores_wrong": [], "confidence_scores_right": [0.991, 0.4, float("nan")],
}  # fmt: skip


def judged(tmp_path: Path, lines: list, judge: dict) -> tuple[dict, list]:
    write(tmp_path / "eval_results_deepeyes" / f"{GATED}.jsonl", lines)
    path = tmp_path / "judge_results_deepeyes" / f"{GATED}_acc.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(judge, indent=4))
    _, problems = import_files("speceyes", [tmp_path], "r")
    verdicts = read("r", "03_judging/gated", JudgedRecord)
    return {k: (r.verdicts[0].verdict, r.verdicts[0].rule) for k, r in verdicts.items()}, problems


def test_verdicts_come_from_the_rules_and_where_these_are_silent_from_the_judges_sums(tmp_path):
    got, problems = judged(tmp_path, GATED_LINES, JUDGE)
    assert got == {
        "sa_1": ("right", "one_character"),
        "sa_2": ("right", "standard_answer_inside"),
        "sa_3": ("wrong", "one_character"),
        "sa_4": ("error", "failed"),
        "sa_5": ("right", "judge_by_sum"),  # 3 of 4 are right, and two of them are known
    }
    assert problems == []
    manifest = read_manifest("r", "03_judging/gated", TASK)
    assert manifest.config["protocol"] == "paper"
    assert manifest.config["judged"]["large_acc"] is None  # NaN in the file


def test_the_list_of_wrong_answers_decides_verdicts_where_it_is_complete(tmp_path):
    lines = [line(i, "some red", **REJECTED) for i in (1, 2, 3)]  # one confidence for all
    judge = JUDGE | {"all_acc": 200 / 3, "all_cnt": 3, "error_preds": [result(2, "some red")]}
    got, problems = judged(tmp_path, lines, judge)
    assert got["sa_2"] == ("wrong", "judge_error_preds")
    assert got["sa_1"] == got["sa_3"] == ("right", "judge_error_preds")
    assert problems == []


def test_confidences_decide_verdicts_that_sums_cannot(tmp_path):
    lines = [line(i, "some red", **REJECTED | {"confidence_score": i / 10}) for i in (1, 2, 3, 4)]
    judge = JUDGE | {"all_acc": 50.0, "all_cnt": 4}
    judge |= {"confidence_scores_right": [0.1, 0.4], "confidence_scores_wrong": [0.2, 0.3]}
    got, problems = judged(tmp_path, lines, judge)
    assert [v for v, _ in got.values()] == ["right", "wrong", "wrong", "right"]
    assert {rule for _, rule in got.values()} == {"judge_by_confidence"}
    assert problems == []


def test_what_cannot_be_decided_stays_undecided_and_is_reported(tmp_path):
    lines = [line(i, "some red", **REJECTED) for i in (1, 2)]  # one confidence for both
    judge = JUDGE | {"all_acc": 50.0, "all_cnt": 2}
    judge |= {"confidence_scores_right": [0.4], "confidence_scores_wrong": [0.4]}
    got, problems = judged(tmp_path, lines, judge)
    assert [v for v, _ in got.values()] == ["undecided", "undecided"]
    assert ["2 answers stay undecided" in p.what for p in problems] == [True]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"all_acc": 25.0}, "all_acc is 25.00 %, 1 of 4 right; the verdicts have 2"),
        ({"all_cnt": 9}, "belong to other answers"),
        ({"all_acc": float("nan")}, "cannot be checked"),
    ],
)
def test_sums_that_contradict_the_answers_are_reported(tmp_path, change, word):
    _, problems = judged(tmp_path, GATED_LINES, JUDGE | change)
    assert [word in p.what for p in problems] == [True]


def test_a_judges_file_that_is_broken_or_alone_is_reported_and_the_answers_are_kept(tmp_path):
    write(tmp_path / f"{GATED}.jsonl", GATED_LINES)
    (tmp_path / f"{GATED}_acc.jsonl").write_text('{"all_acc": ')
    (tmp_path / f"{BASELINE}_acc.jsonl").write_text("{}")
    _, problems = import_files("speceyes", [tmp_path], "r")
    assert len(read("r", "02_gated", AgentRecord)) == 5
    assert sorted("sums" in p.what for p in problems) == [True, True]


@given(
    judge=st.dictionaries(
        st.sampled_from([*JUDGE, "conf_infos"]), st.deferred(lambda: json_values), max_size=6
    )
)
@settings(max_examples=100, deadline=None)
def test_every_answer_has_its_verdict_for_any_content_of_a_judges_file(tmp_path_factory, judge):
    from speceyes_lib.formats import speceyes

    folder = tmp_path_factory.mktemp("judge")
    write(folder / f"{GATED}.jsonl", GATED_LINES)
    (folder / f"{GATED}_acc.jsonl").write_text(json.dumps(JUDGE | judge))
    problems = Problems()
    [part] = speceyes.read([folder], Finder(None), problems)[""]
    assert part.verdicts["final"].keys() == part.records.keys()
    assert len(part.records) == 5
    known = {"right", "wrong", "undecided", "error"}
    assert {verdict for verdict, _ in part.verdicts["final"].values()} <= known


def test_no_result_file_holds_a_bare_nan(tmp_path, runs):
    judged(tmp_path, GATED_LINES, JUDGE)
    assert assert_standard_json(runs) >= 12


# ------------------------------------------------------------------------------------------ there and back


@pytest.fixture
def ours(scene_samples, benchmark_root) -> tuple[str, dict]:
    """A run of ours on the small benchmark: (name, arms)."""
    made_by = {"draft_model": "models/small_1", "agent_model": "models/agent", "batch_size": 16}
    arms = ["collect", "baseline", "gated"]
    return "ours", write_run("ours", scene_samples, benchmark_root, arms, failed=2, **made_by)


def fields_of_gated(record: AgentRecord) -> tuple:
    # the files hold no text of a rejected draft
    draft = record.draft.answer if record.decision == "accepted" else None
    router = record.router.verdict if record.router else "yes" if record.decision == "routed" else None
    return record.status, record.decision, record.used, record.answer, record.confidence, draft, router


def test_our_run_comes_back_from_the_originals_files_as_far_as_they_hold_it(tmp_path, ours, benchmark_root):
    run, arms = ours
    written = export(run, tmp_path / "out")
    assert len(written) == 7 * 3 * 2  # answers and sums, of drafts, baseline and gated
    assert assert_standard_json(tmp_path / "out") == 52 * 3 + 7 * 3
    runs, problems = import_files("speceyes", [tmp_path / "out"], "back", str(benchmark_root))
    assert problems == []
    assert list(runs) == ["back"]
    for task in registry.TASKS:
        for stage in ("baseline", "gated"):
            back = read_stage("back", f"02_{stage}", task, AgentRecord).records
            ours_of_task = {i: r for i, r in arms[stage].items() if i.startswith(f"{task}/")}
            assert {i: fields_of_gated(r) for i, r in back.items()} == {
                i: fields_of_gated(r) for i, r in ours_of_task.items()
            }
            judged = read_stage("back", f"03_judging/{stage}", task, JudgedRecord).records
            verdicts = read_stage(run, f"03_judging/{stage}", task, JudgedRecord).records
            for id_, record in judged.items():
                assert record.verdicts[0].verdict == verdicts[id_].verdicts[0].verdict
                assert (record.group, record.options) == (verdicts[id_].group, verdicts[id_].options)
        drafts = read_stage("back", "01_draft", task, DraftRecord).records
        our_drafts = {i: r.draft for i, r in arms["collect"].items() if i.startswith(f"{task}/")}
        assert {i: (d.answer, d.scores, d.status) for i, d in drafts.items()} == {
            i: (d.answer, d.scores, d.status) for i, d in our_drafts.items()
        }
        collect = read_stage("back", "02_collect", task, AgentRecord).records
        assert collect.keys() == our_drafts.keys()


def test_the_baseline_by_step_speculation_comes_back_too(tmp_path, ours, benchmark_root):
    _, arms = ours
    changes = {"run_mode": "specreason", "decision": "specreason"}
    records = {i: r.model_copy(update=changes) for i, r in arms["baseline"].items()}
    config = {
        "data_root": str(benchmark_root),
        "agent_model": "a",
        "draft_model": "b",
        "specreason_threshold": 7,
    }
    write_answers("steps", {"specreason": records}, config)
    written = export("steps", tmp_path / "out", ["specreason"])
    assert written[0].name == "vstar_direct_attributes_a_b_1_specreason_7.jsonl"
    runs, problems = import_files("speceyes", [tmp_path / "out"], "back", str(benchmark_root))
    assert (list(runs), problems) == (["back"], [])
    back = read_stage("back", "02_specreason", TASK, AgentRecord).records
    assert {i: fields_of_gated(r) for i, r in back.items()} == {i: fields_of_gated(records[i]) for i in back}


@pytest.mark.parametrize("mode", PAPER_SCORES)
def test_every_confidence_mode_and_agent_has_its_file(tmp_path, ours, benchmark_root, mode):
    _, arms = ours
    config = {"data_root": str(benchmark_root), "draft_model": "b", "batch_size": 8, "score": mode, "k": 96}
    config |= {"agent_model": "models/Thyme_RL", "agent": "thyme", "router": "small"}
    write_answers("mode", {"gated": arms["gated"]}, config)
    path, *_ = export("mode", tmp_path / "out")
    assert path.relative_to(tmp_path / "out").as_posix() == (
        f"eval_results_thyme/SpecEyes/vstar_direct_attributes_Thyme-RL_b_8_{mode}_0.97_K=96_PhaseIMs.jsonl"
    )
    assert parse_name(path.stem).mode == mode
    line = json.loads(path.read_text().splitlines()[-1])
    assert "messages" in line  # as the original's Thyme files call it
    assert "print_messages" not in line


def test_the_originals_lines_survive_import_and_export(tmp_path, benchmark_root):
    samples = registry.load_task(TASK, benchmark_root)[:3]
    lines = []
    for sample, fields in zip(samples, (ACCEPTED, REJECTED | {"small_answer": ""}, {}), strict=True):
        fields_of_result = {
            "image": sample.image.path.name,
            "question": sample.question,
            "answer": sample.options[0],
        }
        lines.append(
            line(0, "A", **fields) | {"result": fields_of_result | {"pred_ans": "A"}, "print_messages": []}
        )
    write(tmp_path / "in" / f"{GATED}.jsonl", lines)
    (tmp_path / "in" / "latency_summary.json").write_text(json.dumps({f"{GATED}.jsonl": 9.5}))
    import_files("speceyes", [tmp_path / "in"], "theirs", str(benchmark_root))
    path, summary = export("theirs", tmp_path / "out", data_root=str(benchmark_root))
    assert json.loads(summary.read_text()) == {f"{GATED}.jsonl": 9.5}
    assert path.name == f"{GATED}.jsonl"
    back = [json.loads(text) for text in path.read_text().splitlines()]
    for before, after in zip(lines, back, strict=True):
        assert list(after) == list(before)  # the same fields in the same order
        assert list(after["result"]) == list(before["result"])
        after["print_messages"] = []
        assert after == before


def test_missing_samples_and_foreign_ones_are_reported(tmp_path, benchmark_root):
    sample = registry.load_task(TASK, benchmark_root)[0]
    foreign = {
        "image": sample.image.path.name,
        "question": sample.question,
        "answer": "no such",
        "pred_ans": "A",
    }
    good = foreign | {"answer": sample.options[0]}
    write(
        tmp_path / f"{BASELINE}.jsonl",
        [line(1, "A"), {**line(2, "A"), "result": foreign}, {**line(2, "A"), "result": good}],
    )
    _, problems = import_files("speceyes", [tmp_path], "r", str(benchmark_root))
    assert "is not in the benchmark" in problems[0].what
    assert "the right answer is" in problems[1].what
    assert problems[2].what == f"5 of 6 samples of {TASK} have no line"
    assert len(read("r", "02_baseline", AgentRecord)) == 1


def test_what_the_format_cannot_express_is_refused(tmp_path, ours, benchmark_root):
    _, arms = ours
    with pytest.raises(StageError, match="none of 01_draft, specreason is finished"):
        export("nothing", tmp_path, ["specreason"])
    import_files("speceyes", [write(tmp_path / f"{BASELINE}.jsonl", [line(1, "A")])], "bare")
    with pytest.raises(ConfigError, match="--data-root"):
        export("bare", tmp_path / "out")
    order = ShownOptions(order=(1, 0))
    shuffled = {i: r.model_copy(update={"options_shown": order}) for i, r in arms["baseline"].items()}
    write_answers("shuffled", {"baseline": shuffled}, {"data_root": str(benchmark_root), "agent_model": "a"})
    with pytest.raises(StageError, match="another order"):
        export("shuffled", tmp_path / "out")
    config = {"data_root": str(benchmark_root), "agent_model": "a", "draft_model": "b", "batch_size": 16}
    write_answers("twice", {"gated": arms["gated"], "gated_batched": arms["gated"]}, config)
    with pytest.raises(ConfigError, match="export one at a time"):
        export("twice", tmp_path / "out", ["gated", "gated_batched"])


def test_the_command_line_reports_what_it_did(tmp_path, ours, benchmark_root, capsys):
    out = tmp_path / "out"
    assert main(["export", "ours", str(out)]) == 0
    assert "42 files" in capsys.readouterr().out
    assert main(["import", "speceyes", str(out), "--run", "back", "--data-root", str(benchmark_root)]) == 0
    assert f"run back: 02_gated {TASK}: 6 of 115 samples" in capsys.readouterr().out
    broken = next(out.glob("eval_results_*/SpecEyes/vstar_direct*min*.jsonl"))
    broken.write_text(broken.read_text() + "{\n")
    assert main(["import", "speceyes", str(broken), "--run", "again"]) == 1
    assert "line 7: not valid JSON" in capsys.readouterr().err
    assert main(["import", "speceyes", str(tmp_path / "no"), "--run", "again"]) == 2
    assert "DataError" in capsys.readouterr().err
    assert not (runs_dir() / "no").exists()
