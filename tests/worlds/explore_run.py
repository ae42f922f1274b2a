"""A finished run over the small embedded benchmark, with pictures and token evidence, for the explorers' tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from synthetic_run import make_run, write_answers, write_verdicts

from speceyes_lib.paths import stage_dir
from speceyes_lib.runs.evidence import Evidence
from speceyes_lib.runs.records import DraftRecord
from speceyes_lib.runs.stage import StageStore
from speceyes_lib.tasks.sample import Sample

K_STORED = 32
THRESHOLD = 0.97


def evidence(id_: str, n_tokens: int) -> Evidence:
    """Descending log-probabilities that are known from the id; the first of the stored tokens was chosen."""
    rng = np.random.default_rng(abs(hash_of(id_)))
    gaps = rng.exponential(rng.uniform(0.05, 0.6), (n_tokens, K_STORED))
    top = -np.cumsum(gaps, axis=1) - rng.exponential(9.0, (n_tokens, 1)) * (np.arange(K_STORED) > 0)
    ids = np.tile(np.arange(K_STORED), (n_tokens, 1))
    return Evidence(np.zeros(n_tokens), tuple("ab <é"[i % 5] for i in range(n_tokens)), top[:, 0], ids, top)


def hash_of(text: str) -> int:
    """The same number on every machine and day, unlike `hash`."""
    return sum((i + 1) * ord(c) for i, c in enumerate(text))


def store_run(run: str, samples: list[Sample], root: Path, failed: int = 1) -> None:
    """Stages 01 to 03; the first `failed` samples have an error in every arm."""
    arms, judged = make_run(samples=samples, failed=failed)
    made_from = {"data_root": str(root), "agent_model": "data/demo/models/agent", "k": K_STORED}
    write_answers(run, arms, made_from)
    write_verdicts(run, judged, config={"data_root": str(root)})
    store_drafts(run, {id_: r.draft for id_, r in arms["collect"].items()}, {"data_root": str(root)})


def store_drafts(run: str, drafts: dict[str, DraftRecord], config: dict, finish: bool = True) -> None:
    """Stage 01 with evidence; without `finish` it is left as a run in progress leaves it."""
    for task in sorted({id_.rsplit("/", 1)[0] for id_ in drafts}):
        of_task = {id_: d for id_, d in drafts.items() if id_.rsplit("/", 1)[0] == task}
        with StageStore(
            stage_dir(run, "01_draft", task),
            stage="01_draft",
            task=task,
            record_type=DraftRecord,
            config=config,
            expected_ids=list(of_task),
        ) as store:
            for id_, draft in of_task.items():
                store.append(draft, evidence(id_, draft.n_tokens) if draft.status == "ok" else None)
            if finish:
                store.finish(environment={})
