"""The scheduler: gathers what many samples want next into batches, and runs Phases I-IV.

    I   route      "would a tool help?"; an answer that starts with "no" goes on to II, all else to IV
    II  draft      the small model answers directly
    III gate       confidence strictly above the threshold accepts the draft
    IV  fall back  the agent loop, for what was routed or rejected

Source: SpecEyes (arXiv:2603.23483), section 3. The funnel knows neither wording (prompts build the messages)
nor tools (agents are state machines). What fails, fails for its sample alone and becomes a record: a picture
that cannot be read ends the sample; a failed router or draft sends it to the agent and stays on record.

Timing: every second of the loop is charged to a sample, batched calls in equal shares, so the records' `wall_s`
sum to the clock of the loop (less a per cent or two of bookkeeping). Nothing here runs in the background.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from .confidence import MODES, flatten_answers, score_grid, token_separability
from .errors import DataError
from .gate import accepts
from .images import ImageSpec, resized_view
from .records import AgentRecord, Decision, DraftRecord, Failure, RouterRecord, RunMode, Trajectory

if TYPE_CHECKING:
    from PIL import Image

    from .agents.base import Agent
    from .backends.base import Backend, Generation, GenerationRequest
    from .benchmarks import Sample
    from .evidence import Evidence
    from .prompts import PromptSet

T = TypeVar("T")

ROUTER_EVIDENCE_K = 20  # alternatives of the router's first token among which yes and no are looked for

# make_agent(sample id, question block, original picture, its view, forbid_tool=False): an agent at its first turn
AgentFactory = Callable[..., "Agent"]


@dataclass(frozen=True)
class Drafting:
    """How Phase II asks and scores: token limit, alternatives kept per token, and the scores' K and slope."""

    max_new_tokens: int = 20
    k_store: int = 128
    k: int = 64
    slope: float = 0.6


@dataclass(frozen=True)
class Router:
    """Who answers Phase I, in at most how many tokens."""

    by: Literal["large", "small"] = "large"
    max_new_tokens: int = 10


@dataclass(frozen=True)
class Gate:
    """Phase III: which confidence, and the threshold it must exceed."""

    threshold: float
    score: str = "min"


@dataclass
class _Case:
    """One sample on its way through the phases. Holds the decoded picture until its record is written."""

    sample: Sample
    block: str
    original: Image.Image | None = None
    views: dict[ImageSpec, Image.Image] = field(default_factory=dict)
    failure: Failure | None = None  # of the picture or the router; agent and draft carry their own
    router: RouterRecord | None = None
    router_small: RouterRecord | None = None
    draft: DraftRecord | None = None
    evidence: Evidence | None = None
    agent: Agent | None = None
    look: Trajectory | None = None
    decode_s: float = 0.0
    tool_s: float = 0.0

    def view(self, spec: ImageSpec) -> Image.Image:
        """The picture as a model sees it; models that agree on the size share it."""
        if spec not in self.views:
            start = time.perf_counter()
            self.views[spec] = resized_view(self.original, spec)
            self.decode_s += time.perf_counter() - start
        return self.views[spec]

    def release(self) -> None:
        """Let go of everything that holds pixels."""
        self.original, self.agent = None, None
        self.views.clear()


def run_drafts(
    samples: Iterable[Sample],
    *,
    backend: Backend,
    prompts: PromptSet,
    drafting: Drafting = Drafting(),
    batch_size: int = 8,
) -> Iterator[tuple[DraftRecord, Evidence | None]]:
    """Phase II alone, on every sample (stage 01). Yields one record per sample, in order within each batch."""
    for batch in _batches(samples, batch_size):
        cases = [_open(sample, prompts, backend.image_spec) for sample in batch]
        _draft([c for c in cases if c.original is not None], backend, prompts, drafting)
        for case in cases:
            if case.original is None:
                case.draft = _failed_draft(case, case.failure)
            yield case.draft, case.evidence


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
    drafts: Mapping[str, DraftRecord] | None = None,
    first_look: bool = False,
    router_small: bool = False,
) -> Iterator[tuple[AgentRecord, Evidence | None]]:
    """Run samples through the phases; yields a record, and the evidence of a draft made here, as each is done.

    mode: "gated" (needs draft_backend and gate; router None drafts everything), "collect" (router and agent on
        every sample, the draft taken from `drafts`) or "baseline" (agent only).
    make_agent: starts the agent of a sample.
    score: the confidence that `collect` copies into its records; the gate has its own.
    batch_size: samples per batch of router and draft. agent_batch_size: agents that advance together by one
        batched call per turn; 1 is the paper's setting. At most batch_size + agent_batch_size decoded pictures
        are held at a time.
    first_look: also ask an agent that is forbidden to use its tool, at no charge (collect).
    router_small: also ask the small model whether a tool would help, at no charge (collect; needs draft_backend).

    The order of the records depends on decisions alone, never on timing. Raises ValueError for a mode that
    lacks what it needs.
    """
    if mode == "gated" and (gate is None or draft_backend is None):
        raise ValueError("gated needs a gate and a draft backend")
    if mode == "collect" and drafts is None:
        raise ValueError("collect takes its drafts from stage 01: give `drafts`")
    if mode == "baseline":
        router = None
    asks_small = router_small or (router is not None and router.by == "small")
    if asks_small and draft_backend is None:
        raise ValueError("a router by the small model needs the draft backend")
    router_backend = draft_backend if router is not None and router.by == "small" else agent_backend
    first = draft_backend if mode == "gated" and router is None else router_backend
    pool = AgentPool(agent_backend, agent_batch_size)

    def settle(case: _Case) -> tuple[AgentRecord, Evidence | None]:
        record = _record(case, mode, gate, score)
        case.release()
        return record, case.evidence

    for batch in _batches(samples, agent_batch_size if mode == "baseline" else batch_size):
        cases = [_open(sample, prompts, first.image_spec) for sample in batch]
        if mode == "collect":
            for case in cases:
                case.draft = drafts[case.sample.id]
        readable = [c for c in cases if c.original is not None]
        if router is not None:
            for case, (said, failure) in _route(readable, router_backend, prompts, router):
                case.router, case.failure = said, failure
        if router_small and router_backend is draft_backend:
            for case in readable:
                case.router_small = case.router
        elif router_small:
            small = replace(router or Router(), by="small")
            for case, (said, _) in _route(readable, draft_backend, prompts, small):
                case.router_small = said
        if mode == "gated":
            unrouted = [c for c in readable if c.router is None or c.router.verdict == "no"]
            _draft(unrouted, draft_backend, prompts, drafting)
        if first_look:
            _look(readable, agent_backend, make_agent)
        for case in cases:
            if case.original is None or (mode == "gated" and _accepted(case, gate)):
                yield settle(case)
            else:
                view = case.view(agent_backend.image_spec)
                case.agent = make_agent(case.sample.id, case.block, case.original, view)
                pool.add(case)
        while len(pool) >= agent_batch_size:
            yield from map(settle, pool.advance())
    while len(pool):
        yield from map(settle, pool.advance())


class AgentPool:
    """Agents under way. `advance` gives one turn to up to `size` of them, by one batched call."""

    def __init__(self, backend: Backend, size: int) -> None:
        self.backend, self.size = backend, size
        self._live: list[_Case] = []

    def __len__(self) -> int:
        return len(self._live)

    def add(self, case: _Case) -> None:
        self._live.append(case)

    def advance(self) -> list[_Case]:
        """One turn for the agents chosen; returns those that are done, in the order they came.

        Agents at the same turn go together, because a batch lasts as long as its longest member: the turn that
        fills a batch best, and of equals the latest, so that those under way finish before others begin.
        """
        turns: dict[int, list[_Case]] = {}
        for case in self._live:
            turns.setdefault(case.agent.n_turns, []).append(case)
        _, chosen = max(turns.items(), key=lambda item: (min(len(item[1]), self.size), item[0]))
        chosen = chosen[: self.size]
        generations = self.backend.generate([case.agent.next_request() for case in chosen])
        for case, generation in zip(chosen, generations, strict=True):
            start = time.perf_counter()
            case.agent.feed(generation)
            case.tool_s += time.perf_counter() - start
        done = [case for case in chosen if case.agent.done]
        self._live = [case for case in self._live if not case.agent.done]
        return done


# ------------------------------------------------------------------------------------------------- phases
def _open(sample: Sample, prompts: PromptSet, spec: ImageSpec) -> _Case:
    case = _Case(sample, prompts.question_block(sample.question, sample.options))
    start = time.perf_counter()
    try:
        case.original = sample.image.open()
        case.decode_s = time.perf_counter() - start
        case.view(spec)  # a picture too narrow for the models shows here
    except DataError as e:
        case.original = None
        case.decode_s = time.perf_counter() - start
        case.failure = Failure(type="image_error", message=str(e))
    return case


def _ask(backend: Backend, requests: Sequence[GenerationRequest]) -> list[Generation]:
    return backend.generate(requests) if requests else []


def _route(
    cases: Sequence[_Case], backend: Backend, prompts: PromptSet, router: Router
) -> list[tuple[_Case, tuple[RouterRecord, Failure | None]]]:
    """The router's word on each case, and why there is none where the model failed."""
    from .backends.base import GenerationRequest

    requests = [
        GenerationRequest(
            c.sample.id,
            prompts.router_messages(c.block, c.view(backend.image_spec), router.by),
            router.max_new_tokens,
            evidence_k=min(ROUTER_EVIDENCE_K, backend.vocab_size),
        )
        for c in cases
    ]
    return [(case, _routed(said)) for case, said in zip(cases, _ask(backend, requests), strict=True)]


def _routed(said: Generation) -> tuple[RouterRecord, Failure | None]:
    record = RouterRecord(
        # without a word from the router the agent decides
        verdict="no" if said.text.strip().lower().startswith("no") else "yes",
        text=said.text,
        yes_logprob=_first_logprob(said, "yes"),
        no_logprob=_first_logprob(said, "no"),
        router_s=said.generate_s,
        batch_size=said.batch_size,
    )
    failed = said.error is not None
    return record, Failure(type="router_error", message=said.error.message) if failed else None


def _first_logprob(said: Generation, word: str) -> float | None:
    """Highest log-probability of a first token that reads `word`; None where none of the alternatives does."""
    if said.evidence is None or not said.evidence.n_tokens:
        return None
    alternatives = zip(said.first_texts, said.evidence.top_logprobs[0].tolist(), strict=True)  # highest first
    return next((p for text, p in alternatives if text.strip().casefold() == word and np.isfinite(p)), None)


def _draft(cases: Sequence[_Case], backend: Backend, prompts: PromptSet, drafting: Drafting) -> None:
    from .backends.base import GenerationRequest

    requests = [
        GenerationRequest(
            c.sample.id,
            prompts.draft_messages(c.block, c.view(backend.image_spec)),
            drafting.max_new_tokens,
            evidence_k=drafting.k_store,
        )
        for c in cases
    ]
    said = _ask(backend, requests)
    start = time.perf_counter()
    scored = iter(_score([g.evidence for g in said if g.error is None], drafting))
    scoring_s = (time.perf_counter() - start) / max(1, len(cases))
    for case, g in zip(cases, said, strict=True):
        seconds = g.generate_s + scoring_s
        if g.error is not None:
            failure = Failure(type="draft_error", message=g.error.message)
            case.draft = _failed_draft(case, failure, draft_s=seconds, batch_size=g.batch_size)
            continue
        case.evidence = g.evidence
        case.draft = DraftRecord(
            id=case.sample.id,
            status="ok",
            answer=g.text.strip(),
            n_tokens=len(g.token_ids),
            finish_reason=g.finish_reason,
            **next(scored),
            options_shown=case.sample.options_shown,
            decode_s=case.decode_s,
            draft_s=seconds,
            batch_size=g.batch_size,
        )


def _score(answers: Sequence[Evidence], drafting: Drafting) -> list[dict]:
    """Scores of a batch of drafts in one pass: the fields scores, score_reason and deciding_token of each."""
    if not answers:
        return []
    top, offsets = flatten_answers([a.top_logprobs for a in answers])
    grid = score_grid(top, offsets, (drafting.k,), MODES, drafting.slope)
    separability = token_separability(top, drafting.k)
    rows = []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        own = separability[start:stop]
        if not len(own):
            rows.append({"score_reason": "empty_answer"})
        elif not np.isfinite(own).all():
            rows.append({"score_reason": "non_finite"})
        else:
            scores = {mode: float(grid[mode][i, 0]) for mode in MODES}
            rows.append({"scores": scores, "deciding_token": int(own.argmin())})
    return rows


def _failed_draft(case: _Case, failure: Failure, draft_s: float = 0.0, batch_size: int = 1) -> DraftRecord:
    return DraftRecord(
        id=case.sample.id,
        status="error",
        error=failure,
        finish_reason="error",
        options_shown=case.sample.options_shown,
        decode_s=case.decode_s,
        draft_s=draft_s,
        batch_size=batch_size,
    )


def _look(cases: Sequence[_Case], backend: Backend, make_agent: AgentFactory) -> None:
    """The agents' answers at first sight, as one batch. Not part of any run's cost."""
    agents = [
        make_agent(c.sample.id, c.block, c.original, c.view(backend.image_spec), forbid_tool=True)
        for c in cases
    ]
    for case, agent, said in zip(
        cases, agents, _ask(backend, [a.next_request() for a in agents]), strict=True
    ):
        agent.feed(said)
        case.look = agent.trajectory()


# ------------------------------------------------------------------------------------------------ records
def _confidence(case: _Case, score: str) -> float | None:
    return case.draft.scores[score] if case.draft is not None and case.draft.scores else None


def _accepted(case: _Case, gate: Gate) -> bool:
    confidence = _confidence(case, gate.score)
    return confidence is not None and bool(accepts(confidence, gate.threshold))


def _decision(case: _Case, mode: RunMode, gate: Gate | None) -> Decision:
    if mode != "gated":
        return "collected" if mode == "collect" else "baseline"
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
    return AgentRecord(
        id=case.sample.id,
        run_mode=mode,
        status="error" if failed else "ok",
        error=trajectory.error if failed and trajectory else case.failure,
        decision=decision,
        used="small" if decision == "accepted" else "large",
        answer=answer,
        router=case.router,
        router_small=case.router_small,
        draft=case.draft,
        confidence=_confidence(case, gate.score if gate else score),
        threshold=gate.threshold if gate else None,
        trajectory=trajectory,
        options_shown=case.sample.options_shown,
        first_look=case.look,
        decode_s=case.decode_s,
        tool_s=case.tool_s,
    )


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
