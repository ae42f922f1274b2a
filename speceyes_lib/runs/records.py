"""What flows between the stages: frozen record types, one definition each.

A record is one JSON object per sample and stage. A failed sample is a record with `status="error"` and a typed reason,
never a hole. Ids are stable across machines (`benchmark/split/key`). Non-finite numbers are null, with the reason
beside them.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..tasks.sample import ShownOptions

SCHEMA_VERSION = 1
RunMode = Literal["collect", "gated", "baseline", "specreason"]
Decision = Literal["accepted", "rejected", "routed", "draft_failed", "baseline", "collected", "specreason"]
VerdictValue = Literal["right", "wrong", "unparsed", "undecided", "error"]


class Record(BaseModel):
    """Base of everything stored: immutable, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Failure(Record):
    """Why a sample or a turn failed: a stable machine-readable `type` and a sentence for people."""

    type: str
    message: str


class DraftRecord(Record):
    """The small model's direct answer to one sample (Phase II) and how separated its tokens were."""

    id: str
    status: Literal["ok", "error"]
    error: Failure | None = None
    answer: str | None = None
    n_tokens: int | None = 0  # null: not recorded (imported)
    finish_reason: Literal["stop", "length", "error"] = "stop"
    scores: dict[str, float] | None = (
        None  # of the paper, at the stage's K and slope, from its `evidence.parquet`
    )
    score_reason: str | None = None  # why `scores` is null ("empty_answer", "non_finite")
    deciding_token: int | None = (
        None  # index of the token with the smallest separability, which decides `min`
    )
    options_shown: ShownOptions | None = None  # null: as published, or yes/no
    decode_s: float = 0.0  # this sample's image: read, decode, resize
    draft_s: float = 0.0  # its share of the batched generate
    batch_size: int = 1
    timed: bool = True  # False: its times are unknown (imported), not zero

    @property
    def wall_s(self) -> float:
        """Seconds of the clock this sample is charged; the sum over samples is the split's wall-clock. NaN: unknown."""
        return self.decode_s + self.draft_s if self.timed else math.nan


class RouterRecord(Record):
    """Output of Phase I on one sample: would a tool help?"""

    verdict: Literal["yes", "no"]  # "no" iff `text` starts with "no"
    text: str
    # the highest log-probabilities of a first token that reads yes or no (any case, surrounding space aside) among the
    # stored alternatives; null where none of them does
    yes_logprob: float | None = None
    no_logprob: float | None = None
    router_s: float = 0.0
    batch_size: int = 1


class Proposal(Record):
    """SpecReason: the step that the small model proposed for a turn, and the large model's score of it.

    The step is taken when accepted, otherwise the large model wrote the turn itself.
    """

    text: str
    n_tokens: int
    propose_s: float
    score: int | None = None  # the first digit of `score_text`, null when there is none
    score_text: str = ""
    score_s: float = 0.0
    accepted: bool = False
    error: Failure | None = None  # why there was nothing to score, or no score


class Turn(Record):
    """One turn of an agent: its text, what the tool did, what it cost."""

    text: str
    n_tokens: int | None  # null: not recorded (imported)
    turn_s: float  # this sample's share of the generate calls, those of a proposal included
    batch_size: int = 1
    finish_reason: Literal["stop", "length", "error"] = "stop"
    action: Literal["tool", "answer", "malformed", "none"] = "none"
    tool_call: dict | None = None  # as parsed, before validation
    # in the resized first image, as the model gave it
    box_px: tuple[float, float, float, float] | None = None
    crop_px: tuple[int, int, int, int] | None = None  # mapped to the original image, clamped
    tool_output: str | None = None  # text a program printed, pictures as their sizes
    notes: tuple[
        str, ...
    ] = ()  # what was odd about a turn that was carried out all the same (docs/agents.md)
    proposal: Proposal | None = None
    error: Failure | None = None


class Trajectory(Record):
    """An agent's whole run on one sample. `status="error"` keeps every turn up to the failure."""

    status: Literal["ok", "error"]
    error: Failure | None = None
    answer: str | None = None
    answer_from: Literal["tag", "untagged", "none"] = "none"
    turns: tuple[Turn, ...] = ()
    generated_tokens: int | None = None  # of all turns, where the turns do not have them (imported)
    image_px: tuple[int, int] | None = None  # original width, height
    view_px: tuple[int, int] | None = None  # what the model saw first: boxes are in these pixels

    @property
    def agent_s(self) -> float:
        """Seconds of all turns."""
        return sum(t.turn_s for t in self.turns)


class AgentRecord(Record):
    """One sample through the funnel (Phases I-IV), in any run mode.

    collect: router and agent on every sample, the draft taken over from stage 01; `decision="collected"`.
    gated: the real funnel; `draft` is null when Phase I routed the sample to the agent.
    baseline: agent only. specreason: agent only, whose turns the small model may propose.
    `answer` is the system's final answer (in collect: the agent's).
    """

    id: str
    run_mode: RunMode
    status: Literal["ok", "error"]
    error: Failure | None = None
    decision: Decision
    used: Literal["small", "large"]
    answer: str | None = None
    router: RouterRecord | None = None
    router_small: RouterRecord | None = None  # the small model's output beside it (collect, optional)
    draft: DraftRecord | None = None
    confidence: float | None = None  # the gate's score of the draft, null where there is none
    threshold: float | None = None
    trajectory: Trajectory | None = None
    options_shown: ShownOptions | None = None  # null: as published, or yes/no
    first_look: Trajectory | None = None  # agent forbidden to zoom (collect only, optional)
    decode_s: float = 0.0
    tool_s: float = 0.0
    timed: bool = True  # False: its times are unknown (imported), not zero

    @property
    def wall_s(self) -> float:
        """Seconds charged to this sample: decode + router + draft + agent + tools (no first look, no second router).

        In collect the draft was paid in stage 01 and is not counted again. NaN: unknown.
        """
        if not self.timed:
            return math.nan
        router_s = self.router.router_s if self.router else 0.0
        draft_s = self.draft.draft_s if self.draft and self.run_mode == "gated" else 0.0
        agent_s = self.trajectory.agent_s if self.trajectory else 0.0
        return self.decode_s + self.tool_s + router_s + draft_s + agent_s


class JudgeCall(Record):
    """What a judging model replied about one answer, and what that cost; `failure` says why there is no verdict."""

    model: str
    verdict: Literal["right", "wrong", "unparsed", "undecided"]  # undecided: see failure
    reply: str | None = None  # as it came; of a reply without a verdict the beginning
    failure: Failure | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class HumanCheck(Record):
    """A person's verdict on one answer; it outranks rule and model."""

    verdict: Literal["right", "wrong", "unparsed"]
    reason: str
    author: str
    time_utc: str


class Verdict(Record):
    """Is this answer right, who decided it, under which protocol. Opinions that did not decide are kept.

    `undecided`: rule and model cannot tell (`decided_by` none). `unparsed`: there is nothing to judge, because the
    answer is empty or the judgement cannot be read.
    """

    id: str
    source: Literal["final", "draft", "agent", "first_look"]
    verdict: VerdictValue
    rule: str  # that read the answer, also where it did not decide
    protocol: Literal["strict", "paper", "imported"]  # imported: another program's own
    answer: str | None = None
    standard: str = ""  # the standard answer as shown to people, e.g. "A. red"
    decided_by: Literal["rule", "llm", "human", "imported", "none"] = "rule"
    rule_verdict: VerdictValue | None = None  # the verdict of the rule where another decided
    judge: JudgeCall | None = None
    human: HumanCheck | None = None

    @property
    def by_rule(self) -> VerdictValue:
        """The verdict of the rule alone."""
        return self.verdict if self.rule_verdict is None else self.rule_verdict

    @property
    def unreviewed(self) -> VerdictValue:
        """The verdict without people's: the rule's, or the model's where the rule could not tell."""
        return self.judge.verdict if self._is_for_the_model else self.by_rule

    @property
    def _is_for_the_model(self) -> bool:
        return self.judge is not None and self.by_rule == "undecided"

    def without_human(self) -> Verdict:
        """The verdict as it was before a person looked at it."""
        if self.human is None:
            return self
        machine = "imported" if self.protocol == "imported" else "llm" if self._is_for_the_model else "rule"
        return self.model_copy(
            update={
                "verdict": self.unreviewed,
                "decided_by": "none" if self.unreviewed == "undecided" else machine,
                "rule_verdict": self.rule_verdict if self._is_for_the_model else None,
                "human": None,
            }
        )


class Counts(Record):
    """Samples of a stage: expected, done, taken over from an earlier session, and failed."""

    expected: int
    done: int
    resumed: int = 0
    failed: int = 0


class Manifest(Record):
    """Written last into a finished stage folder. The next stage trusts this file, never file names."""

    schema_version: int = SCHEMA_VERSION
    stage: str
    task: str | None = None  # "benchmark/split"
    config: dict = Field(default_factory=dict)  # resolved stage parameters
    inputs: dict[str, str] = Field(default_factory=dict)  # name -> sha256 or revision
    outputs: dict[str, str] = Field(default_factory=dict)  # file name in the folder -> sha256
    counts: Counts
    timing: dict[str, float] = Field(default_factory=dict)  # *_s; what each covers is in the key's doc
    environment: dict = Field(default_factory=dict)  # commit, packages, hardware, models
    finished_utc: str = ""
    checksum: str = ""  # of all the other values; empty in manifests from before there was one


class JudgedRecord(Record):
    """Everything judged about one sample in one arm, and what the analysis needs of the sample itself.

    With it the later stages read finished runs only, and never the benchmark.
    """

    id: str
    question: str = ""
    kind: str = ""
    group: str = ""  # drawn independently (HR-Bench: the question behind its four orders; POPE: the image)
    target_fraction: float | None = None  # side of what the question is about, as a share of the image's side
    options: tuple[str, ...] = ()  # texts in the order shown ("yes", "no" where the question has no options)
    verdicts: tuple[Verdict, ...]

    def without_human(self) -> JudgedRecord:
        """The record with its verdicts as they were before people looked at them."""
        return self.model_copy(update={"verdicts": tuple(v.without_human() for v in self.verdicts)})


PHASES = ("decode_s", "router_s", "draft_s", "agent_s", "tool_s")
