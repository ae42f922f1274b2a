"""A recorded run as columns: everything that the outcome of a gate setting depends on, one entry per sample.

What a run did not record is marked as absent (`ABSENT`, an empty mapping, None) and never filled in. An imported run
may lack evidence, the router's output, the agent's answer or all times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import StageError, UserError, nearest
from ..gating.scores import GATE_SCORES, score_answers
from ..gating.separability import (
    DEFAULT_K,
    DEFAULT_SLOPE,
    PAPER_SCORES,
    check_slope,
    confidence_of,
    pooled_grid,
)
from ..judging.stage import judge_record
from ..runs.recorded_run import RecordedRun
from ..runs.records import AgentRecord, JudgedRecord, RouterRecord, VerdictValue
from ..tasks.registry import task_of
from .cost_model import CostModel, fit

ABSENT, WRONG, RIGHT, FAILED = -1, 0, 1, 2  # FAILED: a recorded error, wrong under `strict`
_CODES: dict[VerdictValue, int] = {"right": RIGHT, "error": FAILED}  # everything else that was judged: WRONG
SEPARABLE = tuple(mode for mode in PAPER_SCORES if mode != "log")  # the paper's scores that depend on K
INSTRUMENTED = ("collect", "gated")  # arms that hold drafts; the first one that ran is the instrumented pass
TIMED = ("collect", "baseline", "baseline_batched", "gated", "gated_batched")


class NotRecorded(UserError):
    """A setting needs something that the run did not record; the message names it."""


@dataclass(frozen=True, eq=False)
class ReplayData:
    """n samples in the order of the tasks."""

    ids: NDArray  # [n], as tasks and groups
    tasks: NDArray
    groups: NDArray  # samples of one group are not independent of each other
    readable: NDArray[
        np.bool_
    ]  # [n], the picture could be opened. Otherwise no model ran and the sample failed
    routed: Mapping[
        str, NDArray[np.int8]
    ]  # by router ("large", "small") [n]: 1 to the agent, 0 to the draft, or ABSENT
    draft: NDArray[np.int8]  # [n], RIGHT, WRONG, FAILED or ABSENT
    agent: NDArray[np.int8]  # the same
    top_logprobs: NDArray[np.float32] | None = None  # [tokens, K_stored] of all drafts
    offsets: NDArray[np.int64] | None = None  # [n + 1], where each draft begins in them
    # by mode [n], the scores that the draft stage wrote, at this K and slope
    recorded: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    recorded_k: int | None = None
    recorded_slope: float | None = None
    # by name [n], other scores, to which K and slope do not apply
    extra: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    # by (score, K) [n], the paper's scores before the sigmoid: computed from the evidence when first needed, or given
    pooled: dict[tuple[str, int], NDArray[np.float64]] = field(default_factory=dict)
    # by (score, K, slope) [n], other scores of the evidence, computed when first needed
    computed: dict[tuple[str, int, float], NDArray[np.float64]] = field(default_factory=dict)
    cost: CostModel | None = None  # None where nothing was timed
    protocol: str = "strict"
    name: str = ""

    def __post_init__(self) -> None:
        columns = {"tasks": self.tasks, "groups": self.groups, "readable": self.readable}
        columns |= {"draft": self.draft, "agent": self.agent, **self.routed, **self.recorded, **self.extra}
        for name, values in columns.items():
            if len(values) != self.n:
                raise UserError(
                    f"{name} has {len(values)} entries for {self.n} samples; give one per sample."
                )
        if (np.diff(self.task_codes) < 0).any():  # numbered as they first appear
            raise UserError("the samples of a task must be adjacent; sort them by task first.")

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.ids)

    @cached_property
    def task_names(self) -> list[str]:
        """The tasks, in the order of the samples."""
        return list(dict.fromkeys(self.tasks))

    @cached_property
    def task_codes(self) -> NDArray[np.int64]:
        """Which of `task_names` each sample belongs to, int64 [n]."""
        return pd.factorize(self.tasks)[0]

    @cached_property
    def group_codes(self) -> NDArray[np.int64]:
        """The groups as whole numbers from 0, int64 [n]."""
        return pd.factorize(self.groups)[0]

    @cached_property
    def task_groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Codes [n] of the groups, where a group in two tasks counts as two, and the task of each code."""
        pairs, codes = np.unique(self.task_codes * (self.n + 1) + self.group_codes, return_inverse=True)
        return codes, pairs // (self.n + 1)

    @cached_property
    def outcomes(self) -> NDArray[np.int64]:
        """Draft and agent together as one number from 0 to 15, int64 [n]: draft & 3 times 4, plus agent & 3."""
        return (self.draft & 3).astype(np.int64) * 4 + (self.agent & 3)

    @property
    def draft_right(self) -> NDArray[np.bool_]:
        """Bool [n]."""
        return self.draft == RIGHT

    @property
    def agent_right(self) -> NDArray[np.bool_]:
        """Bool [n]."""
        return self.agent == RIGHT

    @property
    def k_stored(self) -> int:
        """The largest K that can be computed; 0 without evidence."""
        return 0 if self.top_logprobs is None else self.top_logprobs.shape[1]

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores that the gate can use."""
        from_tokens = GATE_SCORES if self.k_stored else (*self.recorded, *(m for m, _ in self.pooled))
        return tuple(dict.fromkeys((*from_tokens, *self.extra)))

    def score(
        self, name: str = "min", k: int = DEFAULT_K, slope: float = DEFAULT_SLOPE
    ) -> NDArray[np.float64]:
        """The drafts' confidence, float64 [n]; nan is no confidence (and never accepted).

        The same numbers as the funnel computes, bit for bit: K by K from the stored log-probabilities.

        Raises:
            NotRecorded: the run has no such score, or cannot have it at this K and slope.
        """
        if name in self.extra:
            return self.extra[name]
        if name not in GATE_SCORES or (name not in PAPER_SCORES and self.top_logprobs is None):
            raise NotRecorded(
                f"score {name!r} is not recorded{nearest(name, (*GATE_SCORES, *self.extra))}; there are "
                f"{', '.join(self.score_names) or 'none'}"
            )
        if not (math.isfinite(k) and k == int(k) and k >= 2):
            raise NotRecorded(f"K = {k:g} leaves no alternative to compare with; use a whole K of at least 2")
        try:
            check_slope(slope)
        except UserError as error:
            raise NotRecorded(str(error)) from None
        k, key = int(k), (name, 0 if name == "log" else int(k))
        if name in PAPER_SCORES and key not in self.pooled and self.top_logprobs is None:
            return self._as_recorded(name, k, slope)
        if k > self.k_stored and key not in self.pooled:
            if name != "log":
                raise NotRecorded(
                    f"K = {k} is more than the {self.k_stored} log-probabilities stored per token"
                )
            k = 2  # `log` reads the first one only
        if name not in PAPER_SCORES:
            if (name, k, slope) not in self.computed:
                scores = score_answers(self.top_logprobs, self.offsets, k, slope, (name,))
                self.computed[name, k, slope] = scores[name]
            return self.computed[name, k, slope]
        if key not in self.pooled:
            modes = ("log",) if name == "log" else SEPARABLE
            for mode, values in pooled_grid(self.top_logprobs, self.offsets, (k,), modes).items():
                self.pooled[mode, 0 if mode == "log" else k] = values[:, 0]
        return confidence_of(self.pooled[key], name, slope)

    def _as_recorded(self, name: str, k: int, slope: float) -> NDArray[np.float64]:
        if name not in self.recorded:
            raise NotRecorded(f"score {name!r} is not recorded, and there is no evidence to compute it from")
        if name != "log" and (k, slope) != (self.recorded_k, self.recorded_slope):
            raise NotRecorded(
                f"K = {k} and slope {slope:g} need the evidence of the drafts, which is not recorded; the scores are "
                f"recorded at K = {self.recorded_k} and slope {self.recorded_slope}"
            )
        return self.recorded[name]

    def with_scores(self, scores: Mapping[str, ArrayLike]) -> ReplayData:
        """The same data with more scores to gate by; a name that the evidence gives a score for is refused."""
        if taken := set(scores) & set(GATE_SCORES):
            raise UserError(f"{sorted(taken)[0]!r} is a score of the evidence; choose another name.")
        more = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
        return replace(self, extra={**self.extra, **more})

    def take(self, which: ArrayLike) -> ReplayData:
        """The samples of a mask bool [n] or of indices; their order stays."""
        which = np.asarray(which)
        at = np.flatnonzero(which) if which.dtype == bool else np.sort(which)
        top, offsets = self.top_logprobs, self.offsets
        if offsets is not None:
            lengths = np.diff(offsets)[at]
            bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            rows = np.arange(bounds[-1]) + np.repeat(offsets[:-1][at] - bounds[:-1], lengths)
            top, offsets = top[rows], bounds
        columns = {
            name: getattr(self, name)[at] for name in ("ids", "tasks", "groups", "readable", "draft", "agent")
        }
        mappings = {
            name: {key: values[at] for key, values in getattr(self, name).items()}
            for name in ("routed", "recorded", "extra", "pooled", "computed")
        }
        cost = self.cost and self.cost.take(at)
        return replace(self, **columns, **mappings, top_logprobs=top, offsets=offsets, cost=cost)


def load(recorded: RecordedRun, protocol: str | None = None) -> ReplayData:
    """The instrumented pass of a run as columns: of `collect`, or of `gated` where the run has no `collect`.

    Answers of the agent that it lacks come from `baseline` where that ran, timings from every arm that ran.

    Args:
        recorded: the run.
        protocol: None: the verdicts as they were given. Another one than theirs: all answers are judged again, by
            rule, with the benchmark that the run was judged with (nothing is stored).

    Raises:
        StageError: a stage is missing or unfinished (names the notebook to run), or the tasks were judged under
            different protocols.
    """
    tasks = recorded.tasks
    main = next((arm for arm in INSTRUMENTED if tasks[0] in recorded.finished(f"02_{arm}")), INSTRUMENTED[0])
    stages = {task: recorded.stage(f"02_{main}", task).records for task in tasks}
    tasks_of = [task for task, records in stages.items() for _ in records]
    records = [record for stage in stages.values() for _, record in sorted(stage.items())]
    ids = [record.id for record in records]
    judged, protocol = _verdicts(recorded, main, protocol)
    config = recorded.config(f"02_{main}")
    arms, routers = _timed_arms(recorded, main)
    agent = {r.id: _agent_code(r, judged[r.id]) for r in records}
    if ABSENT in agent.values() and arms["baseline"]:
        verdicts, _ = _verdicts(recorded.select(recorded.finished("02_baseline")), "baseline", protocol)
        for id_, record in arms["baseline"].items():
            if agent.get(id_) == ABSENT:
                agent[id_] = _agent_code(record, verdicts[id_])
    logprobs = recorded.all_top_logprobs()
    top, offsets = _flat(logprobs, ids) if logprobs else (None, None)
    # files of the original hold the confidence of a rejected draft without its text
    gate = [
        {} if r.confidence is None or "score" not in config else {config["score"]: r.confidence}
        for r in records
    ]
    scores = [(r.draft and r.draft.scores) or known for r, known in zip(records, gate, strict=True)]
    scores = pd.DataFrame(scores, dtype=np.float64)
    return ReplayData(
        ids=np.array(ids, dtype=object),
        tasks=np.array(tasks_of, dtype=object),
        groups=np.array([judged[r.id].group or r.id for r in records], dtype=object),
        readable=np.array([r.trajectory is not None or r.status == "ok" for r in records], dtype=bool),
        routed=_routers(records, routers[main]),
        draft=np.array([_draft_code(r, judged[r.id]) for r in records], dtype=np.int8),
        agent=np.array([agent[r.id] for r in records], dtype=np.int8),
        top_logprobs=top,
        offsets=offsets,
        recorded={name: scores[name].to_numpy() for name in PAPER_SCORES if name in scores},
        recorded_k=config.get("k", DEFAULT_K),  # imported runs name only what differs from the paper
        recorded_slope=config.get("slope", DEFAULT_SLOPE),
        cost=fit(arms, ids, tasks_of, routers),
        protocol=protocol,
        name=recorded.name,
    ).with_scores({name: [of.get(id_, np.nan) for id_ in ids] for name, of in recorded.own_scores.items()})


def fitted_without(recorded: RecordedRun, data: ReplayData, arm: str, task: str) -> CostModel | None:
    """The cost model of a run, fitted as if an arm had not run a task: what it predicts there is no recollection.

    Args:
        recorded: the run.
        data: the same run, see `load`.
        arm: one that is not the instrumented pass.
        task: of the run.
    """
    arms, routers = _timed_arms(recorded, "collect")
    arms[arm] = {id_: record for id_, record in arms[arm].items() if task_of(id_) != task}
    return fit(arms, list(data.ids), list(data.tasks), routers)


def _timed_arms(
    recorded: RecordedRun, main: str
) -> tuple[dict[str, Mapping[str, AgentRecord]], dict[str, str]]:
    """Records by arm and id, and the router of each arm; the instrumented pass `main` comes first."""
    arms: dict[str, Mapping[str, AgentRecord]] = {main: recorded.records(main)}
    routers = {main: recorded.config(f"02_{main}").get("router", "large")}
    for arm in TIMED:
        if arm != main:
            ran = recorded.select(recorded.finished(f"02_{arm}"))
            arms[arm] = ran.records(arm)
            routers[arm] = ran.config(f"02_{arm}").get("router", "none") if ran.tasks else "none"
    return arms, routers


def _verdicts(recorded: RecordedRun, arm: str, protocol: str | None) -> tuple[dict[str, JudgedRecord], str]:
    """Verdicts on an arm by sample id, under a protocol (None: theirs), and that protocol."""
    judged = dict(recorded.judged(arm))
    if protocol is None:
        return judged, recorded.protocol_of([arm])
    for task in recorded.tasks:
        config = recorded.manifest(f"03_judging/{arm}", task).config
        if config.get("protocol") == protocol:
            continue
        if "data_root" not in config:
            raise StageError(
                f"run {recorded.name}: {arm} was judged under {config.get('protocol')!r} by another program; it cannot "
                f"be judged again under {protocol!r} without the benchmark"
            )
        for id_, record in recorded.stage(f"02_{arm}", task).records.items():
            judged[id_] = judge_record(recorded.sample(id_), record, protocol, judged[id_].target_fraction)
    return judged, protocol


def _verdict(judged: JudgedRecord, source: str) -> int:
    return next((_CODES.get(v.verdict, WRONG) for v in judged.verdicts if v.source == source), ABSENT)


def _draft_code(record: AgentRecord, judged: JudgedRecord) -> int:
    if record.draft is not None and record.draft.status == "error":
        return FAILED
    code = _verdict(judged, "draft")
    return _verdict(judged, "final") if code == ABSENT and record.used == "small" else code


def _agent_code(record: AgentRecord, judged: JudgedRecord) -> int:
    return _verdict(judged, "final" if record.used == "large" else "agent")


def _routers(records: Sequence[AgentRecord], main: str) -> dict[str, NDArray[np.int8]]:
    """Codes of Phase I by router that has an output. main: the router whose output is in `AgentRecord.router`."""
    outputs = {main: [r.router for r in records], "small": [r.router_small for r in records]}
    if main == "small":
        outputs["small"] = [r.router or r.router_small for r in records]
    return {
        router: np.array([_routed(o, r) for o, r in zip(of_router, records, strict=True)], dtype=np.int8)
        for router, of_router in outputs.items()
        if router != "none" and any(o is not None for o in of_router)
    }


def _routed(output: RouterRecord | None, record: AgentRecord) -> int:
    if output is not None:
        return int(output.verdict == "yes")
    # no router runs on a picture that cannot be read
    return 0 if record.status == "error" and record.trajectory is None else ABSENT


def _flat(
    logprobs: Mapping[str, NDArray[np.float32]], ids: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The drafts' log-probabilities one after the other, as wide as the narrowest is stored."""
    width = min((values.shape[1] for values in logprobs.values() if len(values)), default=2)
    lengths = [len(logprobs[i]) if i in logprobs else 0 for i in ids]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    top = np.empty((offsets[-1], width), np.float32)
    for id_, (start, stop) in zip(ids, pairwise(offsets.tolist()), strict=True):
        if stop > start:
            top[start:stop] = logprobs[id_][:, :width]
    return top, offsets
