"""A funnel that is killed again and again loses nothing, repeats nothing, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from scripted import ScriptedBackend
from sessions import Sessions, drive

from speceyes_lib.runs.reading import read_evidence, read_stage
from speceyes_lib.runs.records import AgentRecord
from speceyes_lib.runs.stage import StageStore
from tests.inference.test_funnel import SPEC, agent_says, begin, draft_says, result

NAMES = [f"{a}-{b}-{i}" for i in range(12) for a in ("sure", "unsure") for b in ("easy", "hard-zoom", "hard")]
NAMES += ["unreadable", "badrouter-easy", "baddraft-easy", "silent-easy", "badagent-hard"]


def session(folder: Path, concurrent: bool) -> None:
    """Do what is missing in the folder. Writes to stdout: < before a call of a model, > after, . for every record."""

    def slowly(says):
        def script(request):
            os.write(1, b"<")
            time.sleep(0.002)
            os.write(1, b">")
            return says(request)

        return ScriptedBackend(script, SPEC)

    StageStore.sync_every_s = 0.02
    store = StageStore(
        folder, stage="02_gated", task="a/b", record_type=AgentRecord, config={}, expected_ids=NAMES
    )
    with store:
        results = begin(
            [name for name in NAMES if name not in store.done_ids],
            draft=slowly(draft_says),
            agent=slowly(agent_says),
            batch_size=6,
            agent_batch_size=4,
            concurrent=concurrent,
        )
        with contextlib.closing(results):
            for record, evidence in results:
                store.append(record, evidence)
                os.write(1, b".")
        store.finish(environment={})


def drive_funnel() -> None:
    session(Path(sys.argv[1]), concurrent=True)  # warms up
    drive(lambda order: session(Path(order["folder"]), order["concurrent"]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Output of a session in a folder, stopped at a given point."""
    code = "from tests.inference.test_funnel_resume import drive_funnel; drive_funnel()"
    sessions = Sessions(code, str(tmp_path_factory.mktemp("warm") / "up"))
    yield lambda folder, concurrent, **stop: sessions.run(
        {"folder": str(folder), "concurrent": concurrent}, **stop
    )
    sessions.close()


def outcome(folder: Path) -> tuple[dict, dict]:
    stage = read_stage(folder, "02_gated", "a/b", AgentRecord)
    assert list(stage.records) == NAMES  # each once, none lost
    assert stage.manifest.counts.done == len(NAMES)
    evidence = {key: (e.token_texts, e.top_logprobs.tolist()) for key, e in read_evidence(folder).items()}
    return result(stage.records), evidence


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_funnel_killed_at_twenty_random_moments_ends_as_an_uninterrupted_one(run, tmp_path, concurrent):
    assert "F" in run(tmp_path / "whole", concurrent)
    expected = outcome(tmp_path / "whole")
    rng = random.Random(3 + concurrent)
    killed, rounds = [], 0
    while len(killed) < 20:
        folder = tmp_path / f"pieces-{rounds}"
        while len(killed) < 20:
            # after so many records, then a little later: the place of the kill does not depend on the machine's speed
            output = run(folder, concurrent, stop=rng.randrange(len(NAMES)), after_s=rng.uniform(0, 0.02))
            if "F" in output:
                break  # it was complete before the kill: on to another folder
            killed.append(output)
        assert "F" in run(folder, concurrent)
        assert outcome(folder) == expected
        rounds += 1
    in_the_middle = [output for output in killed if output.count("<") > output.count(">")]
    assert in_the_middle  # of a router's word, a draft or a turn
    assert sum("." in output for output in killed) >= 5


@pytest.mark.parametrize("concurrent", [False, True])
def test_an_interrupt_from_the_keyboard_stops_cleanly_and_resumes(run, tmp_path, concurrent):
    assert "F" in run(tmp_path / "whole", concurrent)
    output = run(tmp_path / "pieces", concurrent, stop=0, after_s=0.08, how=signal.SIGINT)
    assert "I" in output
    assert output.count("<") - output.count(">") <= 1  # jobs under way in other threads are ended, not torn
    kept = len((tmp_path / "pieces" / "records.jsonl").read_text().splitlines())
    # everything reported is on disk; the last record may be unreported
    assert output.count(".") <= kept <= output.count(".") + 1
    assert kept < len(NAMES)
    assert "F" in run(tmp_path / "pieces", concurrent)
    assert outcome(tmp_path / "pieces") == outcome(tmp_path / "whole")
