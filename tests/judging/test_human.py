"""Human checks: an append-only file in which the latest word counts, and which says what is wrong with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make_run, make_samples, write_answers, write_vstar

from speceyes_lib.analysis.sample_frame import samples
from speceyes_lib.errors import DataError, UserError
from speceyes_lib.judging import human
from speceyes_lib.judging.human import (
    append_gating_mark,
    append_override,
    overrides_of,
    read_checks,
    reviewed,
)
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import JudgingParams
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import JudgedRecord, Verdict

TASK = "vstar/direct_attributes"
SAMPLE = f"{TASK}/001"


@pytest.fixture
def run(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    (tmp_path / "r").mkdir()
    return "r"


def override(run: str, **changed: str):
    given = {"id": SAMPLE, "answer": "scarlet", "verdict": "right", "reason": "means red", "author": "ana"}
    return append_override(run, **(given | changed))


def test_the_latest_word_on_an_answer_counts_and_the_file_keeps_them_all(run):
    override(run, verdict="wrong", reason="not sure")
    override(run)
    override(run, answer="azure", verdict="wrong", reason="another colour")
    verdicts = {answer: check.verdict for (_, answer), check in overrides_of(run).items()}
    assert verdicts == {"scarlet": "right", "azure": "wrong"}
    assert len(read_checks(run)) == 3
    assert list(read_checks(run)["line"]) == [2, 3, 4]


def test_a_check_of_an_answer_like_a_formula_is_no_formula_in_a_spreadsheet(run, tmp_path):
    override(run, answer="=1+1", reason="-cmd|' /C calc'!A0", author="@ana")
    text = (tmp_path / run / human.FILE).read_text("utf-8")
    assert '"\'=1+1"' in text
    assert '"\'@ana"' in text
    [((_, answer), check)] = overrides_of(run).items()
    assert (answer, check.reason, check.author) == ("=1+1", "-cmd|' /C calc'!A0", "@ana")


def test_a_withdrawn_check_is_as_if_it_had_never_been(run):
    override(run)
    override(run, verdict="withdrawn", reason="looked again")
    assert overrides_of(run) == {}
    assert len(read_checks(run)) == 2


def test_marks_on_the_gate_are_kept_apart_from_verdicts(run):
    override(run)
    append_gating_mark(run, id=SAMPLE, mark="unsound", author="ben", note="accepted a tie")
    append_gating_mark(run, id=SAMPLE, mark="sound", author="ben")
    marks = human.read_gating_marks(run)
    assert list(marks[["id", "arm", "mark", "author"]].itertuples(index=False, name=None)) == [
        (SAMPLE, "gated", "sound", "ben")
    ]
    assert len(overrides_of(run)) == 1


def test_a_run_without_checks_has_none(run):
    assert overrides_of(run) == {}
    assert list(read_checks(run).columns) == [*human.COLUMNS, "line"]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)


@given(answer=texts.filter(str.strip), reason=texts.filter(str.strip))
def test_any_answer_and_reason_come_back_as_they_were_given(tmp_path_factory, answer, reason):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("SPECEYES_RUNS", str(folder))
        (folder / "r").mkdir()
        override("r", answer=answer, reason=reason)
        override("r", answer="last", reason="after it")
        first, last = read_checks("r").itertuples(index=False)
    assert (first.answer, first.reason, last.answer) == (answer, reason, "last")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"verdict": "rigth"}, "did you mean 'right'"),
        ({"reason": " "}, "reason is empty"),
        ({"author": ""}, "author is empty"),
        ({"answer": ""}, "answer is empty"),
        ({"id": "001"}, "benchmark/split/key"),
        ({"source": "drafts"}, "did you mean 'draft'"),
    ],
)
def test_a_check_that_nobody_could_follow_is_not_kept(run, changed, message):
    with pytest.raises(UserError, match=message):
        override(run, **changed)
    assert not human.checks_path(run).exists()


def test_there_is_nothing_to_check_in_a_run_that_is_not_there(run):
    with pytest.raises(UserError, match="does not exist"):
        override("other")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-01-01T00:00:00+00:00,ana,answer,a/b/c,gated,final,red,good,why", r"line 3: mark is 'good'"),
        ("yesterday,ana,answer,a/b/c,gated,final,red,right,why", r"line 3: time_utc is 'yesterday'"),
        ("2026-01-01T00:00:00+00:00,ana,answer,a/b/c", r"line 3: 4 fields"),
        ("2026-01-01T00:00:00+00:00,ana,opinion,a/b/c,,,,right,", r"line 3: what is 'opinion'"),
    ],
)
def test_a_line_that_is_no_check_is_reported_by_file_and_line(run, line, message):
    path = override(run)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=rf"human_checks\.csv, {message}"):
        read_checks(run)


def test_another_csv_file_is_not_added_to(run):
    human.checks_path(run).write_text("id,verdict\n1,right\n")
    with pytest.raises(DataError, match="first line"):
        override(run)
    assert human.checks_path(run).read_text() == "id,verdict\n1,right\n"


def test_a_file_saved_by_a_spreadsheet_without_a_last_line_end_goes_on_in_a_new_line(run):
    path = override(run)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    override(run, answer="azure", verdict="wrong", reason="no")
    assert list(read_checks(run)["answer"]) == ["scarlet", "azure"]


# ------------------------------------------------------------------ applying them


def verdict(answer: str | None, value: str = "wrong") -> Verdict:
    return Verdict(id=SAMPLE, source="final", verdict=value, rule="letter", protocol="strict", answer=answer)


def test_a_check_holds_for_the_very_answer_and_keeps_the_verdict_of_the_rule(run):
    override(run)
    checks = overrides_of(run)
    now = reviewed(verdict("scarlet"), checks)
    assert (now.verdict, now.decided_by, now.by_rule, now.unreviewed) == ("right", "human", "wrong", "wrong")
    assert (now.human.author, now.human.reason) == ("ana", "means red")
    assert reviewed(verdict("Scarlet"), checks) == verdict("Scarlet")
    assert reviewed(verdict(None, "error"), checks) == verdict(None, "error")


SAID_1, SAID_NOTHING = ({"model": "judge", "verdict": v} for v in ("right", "undecided"))
MACHINE = [
    {"verdict": "right"},
    {"verdict": "undecided", "decided_by": "none"},
    {"verdict": "right", "decided_by": "llm", "rule_verdict": "undecided", "judge": SAID_1},
    {"verdict": "undecided", "decided_by": "none", "rule_verdict": "undecided", "judge": SAID_NOTHING},
    {"verdict": "wrong", "judge": SAID_1},  # asked for comparison only
    {"verdict": "wrong", "protocol": "imported", "decided_by": "imported"},
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINE, ids=lambda m: f"{m.get('decided_by', 'rule')}-{m['verdict']}")
def test_a_check_can_be_taken_off_again_and_leaves_no_trace(run, machine):
    override(run)
    given = {"id": SAMPLE, "source": "final", "rule": "letter", "protocol": "strict", "answer": "scarlet"}
    before = Verdict.model_validate(given | machine)
    after = reviewed(before, overrides_of(run))
    assert (after.verdict, after.decided_by, after.unreviewed) == ("right", "human", before.verdict)
    assert after.without_human() == before


def test_verdicts_can_be_recomputed_with_and_without_the_verdicts_of_people(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    arms, _ = make_run(per_task=4, tasks=(TASK,))
    arms = {name: arms[name] for name in ("baseline", "gated")}
    write_answers("r", arms)
    write_vstar(tmp_path / "bench", make_samples(4, (TASK,)))
    params = JudgingParams(
        run="r", tasks=[TASK], arms=["baseline", "gated"], data_root=str(tmp_path / "bench")
    )

    def verdicts(**options):
        return samples(recorded_run.open("r"), ["baseline"], **options)["baseline_verdict"]

    run_judging(params)
    before = verdicts()
    record = next(r for r in arms["baseline"].values() if r.status == "ok")
    flipped = {"right": "wrong", "wrong": "right"}[before[list(arms["baseline"]).index(record.id)]]
    override("r", id=record.id, answer=record.answer, verdict=flipped, reason="seen")
    # the checks are new, nothing else is: no need to ask for a restart
    run_judging(params)
    stored = read_stage("r", "03_judging/baseline", TASK, JudgedRecord).records[record.id].verdicts[0]
    assert (stored.verdict, stored.decided_by) == (flipped, "human")
    changed = verdicts() != before
    assert changed.sum() == 1
    assert (verdicts(human_checks=False) == before).all()
    run_judging(params.model_copy(update={"human_checks": "ignore"}))
    assert (verdicts() == before).all()
