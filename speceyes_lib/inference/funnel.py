"""The funnel: router, draft, gate and agent of each sample, and how samples share the models' time.

Source: SpecEyes (arXiv:2603.23483), section 3. A failure concerns only its sample and becomes a record: an unreadable
picture ends the sample; a failed router or draft sends it to the agent. Where server, memory, disk or sandbox failed,
the sample is `Held` instead: it gets no record and is done again later. One at a time (the paper's setting: route a
batch, draft it, run the agents, next batch) and concurrent (both models and the tools work at once) give the same
answers. Every second of the loop is charged to a sample: batched calls in equal shares, simultaneous calls by the
scheduler's rule. So the `wall_s` of the records sum to the clock of the loop; one at a time, up to one or two per cent.

This file is not split: the phases share the state of a case and the accounting of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DataError, MeansError
from ..gating.gate import accepts
from ..gating.scores import check_score, score_answers
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES, flatten_answers, token_separability
from ..models.thoughts import without_thoughts
from ..runs.records import AgentRecord, Decision, DraftRecord, Failure, RouterRecord, RunMode, Trajectory
from ..tasks.images import ImageSpec, resized_view
from .scheduler import Scheduler, Station

if TYPE_CHECKING:
    from PIL import Image

    from ..agents.base import Agent
    from ..agents.prompt_sets import PromptSet
    from ..models.base import Backend, Generation, GenerationRequest, Reuse
    from ..runs.evidence import Evidence
    from ..tasks.sample import Sample

ROUTER_EVIDENCE_K = 20  # alternatives of the router's first token that are searched for yes and no
HOST_WORKERS = 4  # pictures decoded and tools run at once, in the concurrent way
_NOTHING_MEASURED = {"decode_s": 0.0, "tool_s": 0.0}
# make_agent(sample id, question block, original picture, its view, forbid_tool=False): an agent at its first turn
AgentFactory = Callable[..., "Agent"]


@dataclass(frozen=True)
class Drafting:
    """Settings of Phase II."""

    max_new_tokens: int = 20
    k_store: int = 128  # alternatives kept per token
    k: int = DEFAULT_K  # of the scores, as the slope
    slope: float = DEFAULT_SLOPE
    layers: int = 0  # intermediate layers whose predictions are kept


@dataclass(frozen=True)
class Router:
    """Settings of Phase I: the model that answers, and its token limit."""

    by: Literal["large", "small"] = "large"
    max_new_tokens: int = 10


@dataclass(frozen=True)
class Gate:
    """Phase III: which score, one of `GATE_SCORES`, and the threshold it is compared with."""

    threshold: float
    score: str = "min"

    def __post_init__(self) -> None:
        check_score(self.score)


@dataclass(frozen=True)
class Held:
    """A sample without a record, because what the run works with failed. `failure` has the kind and the reason."""

    id: str
    failure: Failure


def run_drafts(
    samples: Iterable[Sample],
    *,
    backend: Backend,
    prompts: PromptSet,
    drafting: Drafting = Drafting(),
    batch_size: int = 8,
    concurrent: bool = False,
    accept_failures: bool = False,
) -> Iterator[tuple[DraftRecord | Held, Evidence | None]]:
    """Phase II alone, on every sample (stage 01). Yields one record per sample as each is done, or why it is held."""
    phases = _Phases("draft", prompts, backend, backend, drafting=drafting, accept_failures=accept_failures)
    for case in phases.run(samples, batch_size, batch_size, concurrent):
        case.release()
        yield case.held or case.draft or _failed_draft(case, case.failure), case.evidence


def run_funnel(
    samples: Iterable[Sample],
    *,
    mode: RunMode,
    agent_backend: Backend,
    make_agent: AgentFactory,
    prompts: PromptSet,
    draft_backend: Backend | None = None,
    drafting: Drafting = Drafting(),
    router: Router | None = None,
    gate: Gate | None = None,
    score: str = "min",
    batch_size: int = 8,
    agent_batch_size: int = 1,
    concurrent: bool = False,
    drafts: Mapping[str, DraftRecord] | None = None,
    reuse: bool = False,
    without_tool: bool = False,
    router_small: bool = False,
    accept_failures: bool = False,
) -> Iterator[tuple[AgentRecord | Held, Evidence | None]]:
    """Run samples through the phases.

    Yields a record, and the evidence of a draft computed here, as each sample is done. One at a time, their order
    depends on decisions alone, never on timing. Raises ValueError for a mode without what it needs.

    mode: "gated" (needs draft_backend and gate), "collect" (router and agent on every sample; needs drafts),
        "baseline" (agent only) or "specreason" (agent only, whose turns may use either model; needs draft_backend).
    router: None drafts every sample. score: the confidence that `collect` copies into its records.
    batch_size: samples per batch of router and draft. agent_batch_size: agents that advance together by one batched
        call per turn; 1 is the paper's setting. At most batch_size + agent_batch_size decoded pictures are held at a
        time (concurrent: 2 * batch_size + agent_batch_size, a server's `max_in_flight` in place of the sizes).
    reuse: whether a local model may reuse pictures and conversations it has already encoded. The paper's setting
        encodes everything again on every turn.
    without_tool: whether an agent without its tool answers as well, at no charge (collect).
    router_small: whether the small model also says if a tool would help, at no charge (collect; needs draft_backend).
    accept_failures: whether faults of server, memory, disk and sandbox become error records. Else the sample is held.
    """
    if mode == "gated" and (gate is None or draft_backend is None):
        raise ValueError("gated needs a gate and a draft backend")
    if mode == "collect" and drafts is None:
        raise ValueError("collect takes its drafts from stage 01: give `drafts`")
    if mode in ("baseline", "specreason"):
        router = None
    uses_small = mode == "specreason" or router_small or (router is not None and router.by == "small")
    if uses_small and draft_backend is None:
        raise ValueError("specreason and a router by the small model need the draft backend")
    phases = _Phases(
        mode,
        prompts,
        agent_backend,
        draft_backend,
        make_agent,
        drafting,
        router,
        gate,
        drafts or {},
        without_tool,
        router_small,
        reuse,
        accept_failures,
    )
    first = agent_batch_size if mode in ("baseline", "specreason") else batch_size
    for case in phases.run(samples, first, agent_batch_size, concurrent):
        record = case.held or _record(case, mode, gate, score)
        case.release()
        yield record, case.evidence


@dataclass(eq=False)
class _Case:
    """One sample on its way through the phases. Holds the decoded picture until its record is written."""

    sample: Sample
    block: str
    original: Image.Image | None = None
    views: dict[ImageSpec, Image.Image] = field(default_factory=dict)
    failure: Failure | None = None  # of the picture, the router or a tool; agent and draft have theirs
    held: Held | None = None
    router: RouterRecord | None = None
    router_small: RouterRecord | None = None
    draft: DraftRecord | None = None
    evidence: Evidence | None = None
    gate_score: float | None = None  # of the draft, where it was computed here
    agent: Agent | None = None
    request: GenerationRequest | None = None  # the agent's next turn
    reply: Generation | None = None  # to that turn, until the agent takes it
    look: Trajectory | None = None
    decode_s: float = 0.0
    tool_s: float = 0.0
    measured: dict[str, float] = field(default_factory=lambda: dict(_NOTHING_MEASURED))  # in this job

    def view(self, spec: ImageSpec) -> Image.Image:
        """The picture as a model sees it; models that agree on the size share it."""
        if spec not in self.views:
            start = time.perf_counter()
            self.views[spec] = resized_view(self.original, spec)
            self.measured["decode_s"] += time.perf_counter() - start
        return self.views[spec]

    def charge(self, share: float) -> None:
        """Charge what the last job measured here, scaled by its share of the clock."""
        self.decode_s += share * self.measured["decode_s"]
        self.tool_s += share * self.measured["tool_s"]
        self.measured |= _NOTHING_MEASURED

    def release(self) -> None:
        """Let go of everything that holds pixels."""
        self.original = self.agent = self.request = self.reply = None
        self.views.clear()


@dataclass(eq=False)
class _Phases:
    """The work of each station of the funnel, what its results change in a case, and where the case goes from there."""

    mode: RunMode | Literal["draft"]
    prompts: PromptSet
    large: Backend
    small: Backend | None
    make_agent: AgentFactory | None = None
    drafting: Drafting = Drafting()
    router: Router | None = None
    gate: Gate | None = None
    drafts: Mapping[str, DraftRecord] | None = None
    without_tool: bool = False
    router_small: bool = False
    reuse: bool = False
    accept_failures: bool = False

    def __post_init__(self) -> None:
        # agents go on from their previous turns. Before them, `collect` measures every phase as if it were alone
        begun = self.reuse and self.mode != "collect"
        self.reuse_begun: Reuse = "conversation" if begun else "nothing"
        self.reuse_pictures: Reuse = "pictures" if begun else "nothing"
        by_small = self.router is not None and self.router.by == "small"
        self.router_backend = self.small if by_small else self.large
        self.first = self.small if self.mode == "gated" and self.router is None else self.router_backend

    def run(
        self, samples: Iterable[Sample], first_size: int, agent_size: int, concurrent: bool
    ) -> Iterator[_Case]:
        """The samples' cases, each as soon as it is through. first_size: samples per batch of the first phase."""
        cases = (_Case(s, self.prompts.question_block(s.question, s.options)) for s in samples)
        seats = {id(b): getattr(b, "max_in_flight", 0) for b in (self.large, self.small) if b is not None}

        def station(name: str, backend: Backend, batch: int, work: Any, take: Any, **how: Any) -> Station:
            size = 1 if concurrent and seats.get(id(backend)) else batch
            return Station(name, id(backend), size, work, take, **how)

        def host(name: str, batch: int, work: Any, take: Any) -> Station:
            return Station(
                name, "host", 1 if concurrent else batch, work, take, brief=True, measured=_measured_s
            )

        def generated_s(cases: list[_Case], replies: list[Generation]) -> float:
            return _measured_s(cases) + sum(reply.generate_s for reply in replies)

        def drafting_s(cases: list[_Case], drafts: list[tuple[Generation, dict, float]]) -> float:
            return _measured_s(cases) + sum(seconds for _, _, seconds in drafts)

        turns = {"measured": generated_s, "patient": True, "alike": lambda case: case.agent.n_turns}
        stations = [
            host("feed", first_size + agent_size, self.feed, self.fed),
            station("turn", self.large, agent_size, self.turn, self.turned, **turns),
            station("turn small", self.small, agent_size, self.turn, self.turned, **turns),
            host("begin", first_size + agent_size, self.begin, self.begun),
            station("draft", self.small, first_size, self.draft, self.drafted, measured=drafting_s),
            station("look", self.large, first_size, self.look, self.looked),
            station("route small", self.small, first_size, self.route_small, self.routed_small),
            station("route", self.router_backend, first_size, self.route, self.routed, measured=generated_s),
            host("open", first_size, self.open, self.opened),
        ]
        # without a small model, no case goes to its stations
        stations = [s for s in stations if s.lane != id(None)]
        if not concurrent:
            return Scheduler(stations, self.destination).run(cases)
        workers = {lane: count or 1 for lane, count in seats.items()} | {"host": HOST_WORKERS}
        window = 2 * max([first_size, *seats.values()]) + (seats[id(self.large)] or agent_size)
        return Scheduler(stations, self.destination, workers, window).run(cases)

    def destination(self, case: _Case) -> str | None:
        """Where a sample goes next; None when its record is complete."""
        if case.original is None or case.held:
            return None
        if self.mode == "draft":
            return "draft" if case.draft is None else None
        if self.router is not None and case.router is None:
            return "route"
        if self.router_small and case.router_small is None:
            return "route small"
        if self.without_tool and case.look is None:
            return "look"
        if self.mode == "gated":
            if case.draft is None and (case.router is None or case.router.verdict == "no"):
                return "draft"
            if _accepted(case, self.gate):
                return None
        if case.agent is None:
            return "begin"
        if case.reply is not None:
            return "feed"
        if case.request is None:
            return None
        return "turn small" if case.request.role == "small" else "turn"

    def _hold(self, case: _Case, kind: str, message: str) -> None:
        """Hold a sample back if there is a kind of fault, unless such faults are accepted as results."""
        if kind and not self.accept_failures:
            case.held = Held(case.sample.id, Failure(type=kind, message=message))

    def _check(self, case: _Case, reply: Generation) -> None:
        if reply.error is not None:
            self._hold(case, reply.means, reply.error.message)

    # ---------------------------------------------------------------------------------------- the picture
    def open(self, cases: list[_Case]) -> list[None]:
        for case in cases:
            start = time.perf_counter()
            try:
                case.original = case.sample.image.open()
                case.measured["decode_s"] = time.perf_counter() - start
                case.view(self.first.image_spec)  # a picture too narrow for the models shows here
            except (DataError, *_MEANS) as e:
                case.original = None
                case.measured["decode_s"] = time.perf_counter() - start
                case.failure = Failure(type="image_error", message=_message(e))
                self._hold(case, _kind(e), case.failure.message)
        return [None] * len(cases)

    def opened(self, case: _Case, _: None, share: float) -> None:
        case.charge(share)
        if self.mode == "collect":
            case.draft = self.drafts[case.sample.id]

    # ------------------------------------------------------------------------------------------ I, the router
    def route(self, cases: list[_Case]) -> list[Generation]:
        return self._ask_router(cases, self.router_backend, self.router)

    def routed(self, case: _Case, reply: Generation, share: float) -> None:
        self._check(case, reply)
        case.charge(share)
        case.router = _routed(reply, share)
        if reply.error is not None:
            case.failure = Failure(type="router_error", message=reply.error.message)
        if self.router_small and self.router.by == "small":
            case.router_small = case.router

    def route_small(self, cases: list[_Case]) -> list[Generation]:
        return self._ask_router(cases, self.small, replace(self.router or Router(), by="small"))

    def routed_small(self, case: _Case, reply: Generation, share: float) -> None:
        self._check(case, reply)
        case.charge(0.0)
        case.router_small = _routed(reply, share)

    def _ask_router(self, cases: list[_Case], backend: Backend, router: Router) -> list[Generation]:
        from ..models.base import GenerationRequest

        # a large model's router and agent may begin alike, picture included
        reuse = self.reuse_begun if backend is self.large else self.reuse_pictures
        requests = [
            GenerationRequest(
                c.sample.id,
                self.prompts.router_messages(c.block, c.view(backend.image_spec), router.by),
                router.max_new_tokens,
                evidence_k=min(ROUTER_EVIDENCE_K, backend.vocab_size),
                reuse=reuse,
            )
            for c in cases
        ]
        return backend.generate(requests)

    # ------------------------------------------------------------------------------------------ II, the draft
    def draft(self, cases: list[_Case]) -> list[tuple[Generation, dict, float]]:
        from ..models.base import GenerationRequest, answer_only

        requests = [
            GenerationRequest(
                c.sample.id,
                self.prompts.draft_messages(c.block, c.view(self.small.image_spec)),
                self.drafting.max_new_tokens,
                evidence_k=self.drafting.k_store,
                layers=self.drafting.layers,
                reuse=self.reuse_pictures,
            )
            for c in cases
        ]
        replies = [answer_only(reply) for reply in self.small.generate(requests)]
        start = time.perf_counter()
        evidence = [g.evidence for g in replies if g.error is None]
        scored = iter(_score(evidence, self.drafting, self.gate.score if self.gate else "min"))
        scoring_s = (time.perf_counter() - start) / len(cases)
        return [(g, {} if g.error else next(scored), g.generate_s + scoring_s) for g in replies]

    def drafted(self, case: _Case, result: tuple[Generation, dict, float], share: float) -> None:
        reply, scored, seconds = result
        self._check(case, reply)
        case.charge(share)
        cost = {"draft_s": share * seconds, "batch_size": reply.batch_size}
        if reply.error is not None:
            case.draft = _failed_draft(case, Failure(type="draft_error", message=reply.error.message), **cost)
            return
        case.evidence = _with_one_state(reply.evidence, scored.get("deciding_token"))
        case.gate_score = scored.pop("gate_score", None)
        case.draft = _draft_record(
            case,
            status="ok",
            answer=reply.text,
            n_tokens=len(reply.token_ids),
            finish_reason=reply.finish_reason,
            **scored,
            **cost,
        )

    # ------------------------------------------------------------------------------------------ IV, the agent
    def look(self, cases: list[_Case]) -> list[tuple[Generation, Trajectory]]:
        """The agents' answers without the tool, as one batch. Not part of any run's cost."""
        agents = [self._agent(case, forbid_tool=True) for case in cases]
        replies = self.large.generate([agent.next_request() for agent in agents])
        for agent, reply in zip(agents, replies, strict=True):
            agent.feed(reply)
        return [(reply, agent.trajectory()) for agent, reply in zip(agents, replies, strict=True)]

    def looked(self, case: _Case, result: tuple[Generation, Trajectory], share: float) -> None:
        reply, case.look = result
        self._check(case, reply)
        case.charge(share)  # a view that the agent needs as well

    def begin(self, cases: list[_Case]) -> list[Agent]:
        agents = []
        for case in cases:
            case.view(self.large.image_spec)
            start = time.perf_counter()
            agents.append(self._agent(case))
            case.measured["tool_s"] += time.perf_counter() - start
        return agents

    def begun(self, case: _Case, agent: Agent, share: float) -> None:
        case.charge(share)
        case.agent, case.request = agent, agent.next_request()

    def turn(self, cases: list[_Case]) -> list[Generation]:
        backend = self.small if cases[0].request.role == "small" else self.large
        reuse = "conversation" if self.reuse else "nothing"
        return backend.generate([replace(case.request, reuse=reuse) for case in cases])

    def turned(self, case: _Case, reply: Generation, share: float) -> None:
        self._check(case, reply)
        case.reply = replace(reply, generate_s=share * reply.generate_s)

    def feed(self, cases: list[_Case]) -> list[GenerationRequest | None]:
        requests = []
        for case in cases:
            start = time.perf_counter()
            try:
                case.agent.feed(case.reply)
                requests.append(case.agent.next_request())
            except _MEANS as e:  # of the sandbox or its disk: the agent cannot go on
                case.original = None
                case.failure = Failure(type="tool_error", message=_message(e))
                self._hold(case, _kind(e), case.failure.message)
                requests.append(None)
            case.measured["tool_s"] += time.perf_counter() - start
        return requests

    def fed(self, case: _Case, request: GenerationRequest | None, share: float) -> None:
        case.charge(share)
        case.reply, case.request = None, request

    def _agent(self, case: _Case, **how: bool) -> Agent:
        view = case.view(self.large.image_spec)
        return self.make_agent(case.sample.id, case.block, case.original, view, **how)


def _measured_s(cases: Iterable[_Case], _results: Any = None) -> float:
    """Seconds that the cases measured themselves in the job that ended."""
    return sum(sum(case.measured.values()) for case in cases)


_MEANS = (MeansError, MemoryError, OSError)


def _kind(error: Exception) -> str:
    """The kind of a fault of `_MEANS`; "" for another error."""
    if isinstance(error, MeansError):
        return error.kind
    return "out_of_memory" if isinstance(error, MemoryError) else "disk" if isinstance(error, OSError) else ""


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, DataError | MeansError) else f"{type(error).__name__}: {error}"


def _routed(reply: Generation, share: float) -> RouterRecord:
    return RouterRecord(
        # without an answer of the router, the sample goes to the agent
        verdict="no" if without_thoughts(reply.text).lower().startswith("no") else "yes",
        text=reply.text,
        yes_logprob=_first_logprob(reply, "yes"),
        no_logprob=_first_logprob(reply, "no"),
        router_s=share * reply.generate_s,
        batch_size=reply.batch_size,
    )


def _first_logprob(reply: Generation, word: str) -> float | None:
    """Highest log-probability of a first token that reads `word`; None where none of the alternatives does."""
    if reply.evidence is None or not reply.evidence.n_tokens or not reply.first_texts:
        return None
    alternatives = zip(
        reply.first_texts, reply.evidence.top_logprobs[0].tolist(), strict=True
    )  # highest first
    return next((p for text, p in alternatives if text.strip().casefold() == word and np.isfinite(p)), None)


def _score(answers: Sequence[Evidence], drafting: Drafting, gate_score: str) -> list[dict]:
    """For each draft of a batch, the fields of its record that are about scores, and its `gate_score`."""
    if not answers:
        return []
    top, offsets = flatten_answers([a.top_logprobs for a in answers])
    names = dict.fromkeys((*PAPER_SCORES, gate_score))
    by_score = score_answers(top, offsets, drafting.k, drafting.slope, tuple(names))
    separability = token_separability(top, drafting.k)
    rows = []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        tokens = separability[start:stop]
        if not len(tokens):
            rows.append({"score_reason": "empty_answer"})
        elif not np.isfinite(tokens).all():
            rows.append({"score_reason": "non_finite"})
        else:
            scores = {name: float(by_score[name][i]) for name in PAPER_SCORES}
            gated = float(by_score[gate_score][i])
            rows.append({"scores": scores, "deciding_token": int(tokens.argmin()), "gate_score": gated})
    return rows


def _with_one_state(evidence: Evidence | None, deciding_token: int | None) -> Evidence | None:
    """The evidence with the state of the deciding token only, where it holds layers."""
    if evidence is None or evidence.layers is None:
        return evidence
    return replace(evidence, layers=evidence.layers.with_state_of(deciding_token))


def _draft_record(case: _Case, **values: Any) -> DraftRecord:
    shown = case.sample.options_shown
    return DraftRecord(id=case.sample.id, options_shown=shown, decode_s=case.decode_s, **values)


def _failed_draft(case: _Case, failure: Failure, **cost: float) -> DraftRecord:
    return _draft_record(case, status="error", error=failure, finish_reason="error", **cost)


def _accepted(case: _Case, gate: Gate) -> bool:
    return case.gate_score is not None and bool(accepts(case.gate_score, gate.threshold))


def _decision(case: _Case, mode: RunMode, gate: Gate | None) -> Decision:
    if mode != "gated":
        return "collected" if mode == "collect" else mode
    if case.router is not None and case.router.verdict == "yes":
        return "routed"
    if case.draft is None or case.draft.status == "error":
        return "draft_failed"
    return "accepted" if _accepted(case, gate) else "rejected"


def _record(case: _Case, mode: RunMode, gate: Gate | None, score: str) -> AgentRecord:
    decision = _decision(case, mode, gate)
    trajectory = case.agent.trajectory() if case.agent is not None else None
    answer = case.draft.answer if decision == "accepted" else trajectory.answer if trajectory else None
    failed = decision != "accepted" and (trajectory is None or trajectory.status == "error")
    # `collect` copies the score of that name that stage 01 recorded
    recorded = case.draft.scores if case.draft is not None and case.draft.scores else {}
    return AgentRecord(
        id=case.sample.id,
        run_mode=mode,
        status="error" if failed else "ok",
        error=trajectory.error if failed and trajectory and case.original is not None else case.failure,
        decision=decision,
        used="small" if decision == "accepted" else "large",
        answer=answer,
        router=case.router,
        router_small=case.router_small,
        draft=case.draft,
        confidence=case.gate_score if gate else recorded.get(score),
        threshold=gate.threshold if gate else None,
        trajectory=trajectory,
        options_shown=case.sample.options_shown,
        first_look=case.look,
        decode_s=case.decode_s,
        tool_s=case.tool_s,
    )
