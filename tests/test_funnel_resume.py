"""A funnel that is killed again and again loses nothing, repeats nothing, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speceyes_lib.records import AgentRecord
from speceyes_lib.store import read_evidence, read_stage
from tests.test_funnel import DRAFTING, PROMPTS, SPEC, agent_says, draft_says, make_agent, samples, told

NAMES = [f"{a}-{b}-{i}" for i in range(12) for a in ("sure", "unsure") for b in ("easy", "hard-zoom", "hard")]
NAMES += ["unreadable", "badrouter-easy", "baddraft-easy", "silent-easy", "badagent-hard"]


def session(folder: Path, concurrent: bool) -> None:
    """Do what is missing in the folder. Tells on stdout: < before a model is asked, > after, . for every record."""
    from speceyes_lib.backends.scripted import ScriptedBackend
    from speceyes_lib.funnel import Gate, Router, run_funnel
    from speceyes_lib.store import StageStore

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
        todo = samples(*(name for name in NAMES if name not in store.done_ids))
        results = run_funnel(
            todo,
            mode="gated",
            agent_backend=slowly(agent_says),
            draft_backend=slowly(draft_says),
            make_agent=make_agent,
            prompts=PROMPTS,
            drafting=DRAFTING,
            router=Router(),
            gate=Gate(0.9),
            batch_size=6,
            agent_batch_size=4,
            concurrent=concurrent,
        )
        with contextlib.closing(results):
            for record, evidence in results:
                store.append(record, evidence)
                os.write(1, b".")
        store.finish(environment={})


def drive() -> None:
    """Run a session per line of stdin, each in a child of this process, which has paid for all imports."""
    session(Path(sys.argv[1]), concurrent=True)  # warms up
    os.write(1, b"\n")
    for order in sys.stdin:
        folder, concurrent = json.loads(order)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(1, b"%d " % os.getpid())
            try:
                session(Path(folder), concurrent)
                os.write(1, b"F")
            except KeyboardInterrupt:
                os.write(1, b"I")
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, b"E\n")


class Driver:
    def __init__(self, folder: Path) -> None:
        code = "from tests.test_funnel_resume import drive; drive()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        self._read(b"\n")

    def _read(self, end: bytes, seen: bytes = b"") -> bytes:
        while not seen.endswith(end):
            assert select.select([self.process.stdout], [], [], 120)[0], "the session hangs"
            chunk = os.read(self.process.stdout.fileno(), 1)
            assert chunk, "the driver is gone"
            seen += chunk
        return seen

    def run(
        self, folder: Path, concurrent: bool, after_s: float | None = None, how: int = signal.SIGKILL
    ) -> str:
        """What a session told; stopped `after_s` seconds after it began, where given."""
        self.process.stdin.write(json.dumps([str(folder), concurrent]).encode() + b"\n")
        self.process.stdin.flush()
        pid = self._read(b" ")
        if after_s is not None:
            time.sleep(after_s)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(int(pid), how)
        return self._read(b"E\n").decode()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = Driver(tmp_path_factory.mktemp("warm") / "up")
    yield driver
    driver.close()


def outcome(folder: Path) -> tuple[dict, dict]:
    stage = read_stage(folder, "02_gated", "a/b", AgentRecord)
    assert list(stage.records) == NAMES  # each once, none lost
    assert stage.manifest.counts.done == len(NAMES)
    evidence = {key: (e.token_texts, e.top_logprobs.tolist()) for key, e in read_evidence(folder).items()}
    return told(stage.records), evidence


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_funnel_killed_at_twenty_random_moments_ends_as_an_uninterrupted_one(driver, tmp_path, concurrent):
    assert "F" in driver.run(tmp_path / "whole", concurrent)
    expected = outcome(tmp_path / "whole")
    rng = random.Random(3 + concurrent)
    killed, rounds = [], 0
    while len(killed) < 20:
        folder = tmp_path / f"pieces-{rounds}"
        while len(killed) < 20:
            said = driver.run(folder, concurrent, after_s=rng.uniform(0, 0.12))
            if "F" in said:
                break  # it was complete before the kill: on to another folder
            killed.append(said)
        assert "F" in driver.run(folder, concurrent)
        assert outcome(folder) == expected
        rounds += 1
    in_the_middle = [said for said in killed if said.count("<") > said.count(">")]
    assert len(in_the_middle) >= 5  # of a router's word, a draft or a turn
    assert sum("." in said for said in killed) >= 5


@pytest.mark.parametrize("concurrent", [False, True])
def test_an_interrupt_from_the_keyboard_stops_cleanly_and_resumes(driver, tmp_path, concurrent):
    assert "F" in driver.run(tmp_path / "whole", concurrent)
    said = driver.run(tmp_path / "pieces", concurrent, after_s=0.08, how=signal.SIGINT)
    assert "I" in said
    assert said.count("<") - said.count(">") <= 1  # jobs under way in other threads are ended, not torn
    kept = len((tmp_path / "pieces" / "records.jsonl").read_text().splitlines())
    assert said.count(".") <= kept <= said.count(".") + 1  # everything told is on disk; the last may be untold
    assert kept < len(NAMES)
    assert "F" in driver.run(tmp_path / "pieces", concurrent)
    assert outcome(tmp_path / "pieces") == outcome(tmp_path / "whole")
