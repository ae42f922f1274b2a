"""The original's files, judged under `paper`: the sums are those of its rules, counted by hand."""

from __future__ import annotations

import json

import pytest
from synthetic_run import write_answers

from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import JudgingParams
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord, Failure, JudgedRecord
from speceyes_lib.tasks import registry

RIGHT, WRONG, OPEN, LOST = "right", "wrong", "undecided", "error"
# what is answered to the samples in turn ({0}: the right letter or word, {1}: its text), and what `paper` makes of it
PLAYS = {
    "vstar/direct_attributes": [
        ("A", RIGHT),
        ("A. {1}", RIGHT),
        ("B.", WRONG),
        ("{1}", OPEN),
        (None, LOST),
        ("a", WRONG),
    ],
    "hr/hr_bench_4k": [
        ("{0}", RIGHT),
        ("I say {0}", RIGHT),
        ("?", WRONG),
        (None, LOST),
        ("no idea", OPEN),
        ("{0}.", RIGHT),
        ("\\boxed{{{0}}} it is", RIGHT),
    ],
    "pope/random": [("{0}", RIGHT), ("{0}.", OPEN), (None, LOST)],
}


@pytest.fixture
def theirs(tmp_path, monkeypatch, benchmark_root):
    """A baseline's answers written as the original's files and read back as the run `theirs`; verdicts by hand."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    records, by_hand = {}, {}
    for task, plays in PLAYS.items():
        for i, sample in enumerate(registry.load_task(task, benchmark_root)):
            reply, verdict = plays[i % len(plays)]
            lost = reply is None
            records[sample.id] = AgentRecord(
                id=sample.id,
                run_mode="baseline",
                status="error" if lost else "ok",
                error=Failure(type="out_of_memory", message="CUDA out of memory") if lost else None,
                decision="baseline",
                used="large",
                answer=None if lost else reply.format(sample.answer, sample.answer_text),
            )
            by_hand[sample.id] = (verdict, str(sample.meta.get("category", "")))
    write_answers("ours", {"baseline": records})
    export("ours", tmp_path / "files", tasks=list(PLAYS), data_root=str(benchmark_root))
    files = [p for p in (tmp_path / "files").rglob("*.jsonl") if not p.stem.endswith("_acc")]
    import_files("speceyes", files, "theirs", str(benchmark_root))
    return by_hand


def test_the_originals_files_get_the_numbers_of_its_rules_to_the_last_digit(theirs, tmp_path, benchmark_root):
    run_judging(
        JudgingParams(
            run="theirs",
            tasks=list(PLAYS),
            arms=["baseline"],
            data_root=str(benchmark_root),
            protocol="paper",
            if_changed="restart",
        )
    )
    for task in PLAYS:
        judged = read_stage("theirs", "03_judging/baseline", task, JudgedRecord).records
        assert {i: r.verdicts[0].verdict for i, r in judged.items()} == {i: theirs[i][0] for i in judged}
    export("theirs", tmp_path / "again", tasks=list(PLAYS), data_root=str(benchmark_root))
    sums_by_file = {p.name: json.loads(p.read_text()) for p in (tmp_path / "again").rglob("*_acc.jsonl")}
    assert len(sums_by_file) == len(PLAYS)
    for task in PLAYS:
        (sums,) = [v for name, v in sums_by_file.items() if name.startswith(task.replace("/", "_"))]
        kept = [(v, kind) for i, (v, kind) in theirs.items() if i.startswith(f"{task}/") and v != LOST]
        assert sums["all_cnt"] == len(kept)
        assert sums["all_acc"] == sum(v == RIGHT for v, _ in kept) / len(kept) * 100
        if task.startswith("hr/"):
            for kind, share in sums["acc_per_category"].items():
                of_kind = [v for v, k in kept if k == kind]
                assert share == of_kind.count(RIGHT) / len(of_kind)
