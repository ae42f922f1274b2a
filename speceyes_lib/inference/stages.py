"""Notebooks 01 and 02 without the notebook: parameters in, finished stage folders out.

Models are loaded once per process and reused over tasks, arms and calls. Every task (and arm) is a stage folder
of its own, resumed by sample id after any interruption. `timing` in its manifest:

    load_s      loading the models, where this stage was the first to need them
    warmup_s    their first, throw-away answers
    session_s   the loop of this session, bookkeeping and disk included
    wall_s      sum of the records' wall_s, over all sessions: what the method cost
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from ..agents import prompt_sets
from ..agents.embedded import adapt
from ..agents.prompt_sets import PromptSet
from ..agents.registry import AGENTS, agent_factory
from ..agents.specreason import SpecReason
from ..errors import ACCEPT, StageError
from ..gating.threshold import read_operating_point
from ..models.base import Backend
from ..models.registry import backend_type
from ..params import AgentParams, DraftParams
from ..paths import notebook_of, resolve, shown, stage_dir
from ..runs.arms import DRAFT_STAGE, Arm
from ..runs.evidence import Evidence
from ..runs.provenance import code_hash, environment, text_hash
from ..runs.reading import StageData, read_manifest, read_stage
from ..runs.records import AgentRecord, DraftRecord, Failure, Record
from ..runs.shards import Shard
from ..runs.stage import StageStore
from ..tasks import registry, sample
from ..tasks.sample import Sample
from ..tools.sandbox import Sandbox
from .funnel import Drafting, Gate, Held, Router, run_drafts, run_funnel
from .loaded_models import LoadedModels, Params

P = TypeVar("P", DraftParams, AgentParams)
Progress = Callable[..., None]
Done = Iterator[tuple[Record | Held, Evidence | None]]
GIVE_UP_AFTER = (
    20  # samples in a row that are held back: what they need is gone, and waiting for each would take hours
)


def _silent(done: int, total: int, text: str = "") -> None:
    pass


def run_draft_stage(
    params: DraftParams, progress: Progress = _silent, shard: Shard | None = None
) -> list[Path]:
    """Notebook 01: the small model answers every sample of every task. Returns the finished stage folders.

    A sample for which server, memory or disk failed gets no record. It is tried again while others succeed, and when
    the stage is resumed; until then its stage is unfinished.

    Args:
        params: of the notebook.
        progress: called as (done, total, task), first with what an earlier session left.
        shard: do that part only, in folders of its own.

    Raises:
        UserError: a mistake that the user can correct. What is done stays and is not repeated.
        StageError: samples were held back. All other tasks were worked on before, unless GIVE_UP_AFTER samples in a row
            were held back.
    """
    params = with_available_alternatives(params)
    models = LoadedModels(params, ["draft"])
    wording = prompt_sets.load(params.prompts)
    common = _common_inputs(wording)

    def draft(task: str) -> Path:
        samples = load_samples(params, task)
        work = partial(_drafts, params, wording, models)
        stage = _Stage(DRAFT_STAGE, task, DraftRecord, params.stage_config(), common)
        return _run(params, stage, samples, models, work, progress, task, shard)

    return _each(partial(draft, task) for task in params.tasks)


def run_agent_stage(
    params: AgentParams, progress: Progress = _silent, shard: Shard | None = None
) -> list[Path]:
    """Notebook 02: every arm of `params.arms` on every task. Returns the finished stage folders.

    Arguments and errors as `run_draft_stage`; the progress text is "task · arm". Raises StageError naming the
    notebook to run first where `collect` lacks its drafts or `gated` its threshold.
    """
    params = with_available_alternatives(params)
    wording = prompt_sets.load(params.prompts)
    arms = [params.arm(name) for name in params.arms]
    models = {arm: LoadedModels(params, _roles(params, arm)) for arm in arms}
    threshold = threshold_of(params) if any(arm.run_mode == "gated" for arm in arms) else None
    common = _common_inputs(wording)

    def run_arm(task: str, arm: Arm) -> Path:
        samples = load_samples(params, task)
        drafts = _drafts_of_stage_01(params, task, samples) if arm.run_mode == "collect" else None
        inputs = common | ({"drafts": drafts.sha256} if drafts else {})
        stage = _Stage(arm.stage, task, AgentRecord, params.arm_config(arm.name, threshold), inputs)
        work = partial(_agents, params, arm, wording, models[arm], threshold, drafts and drafts.records)
        return _run(params, stage, samples, models[arm], work, progress, f"{task} · {arm.name}", shard)

    return _each(partial(run_arm, task, arm) for task in params.tasks for arm in arms)


class _HeldBack(StageError):
    """A stage that cannot be finished now. `gone`: neither can any other."""

    def __init__(self, message: str, gone: bool) -> None:
        super().__init__(message)
        self.gone = gone


def _each(works: Iterable[Callable[[], Path]]) -> list[Path]:
    """The folders of all stages. A stage with samples held back does not keep the next ones from being done."""
    folders, unfinished = [], []
    for work in works:
        try:
            folders.append(work())
        except _HeldBack as error:
            unfinished.append(str(error))
            if error.gone:
                break
    if unfinished:
        raise StageError(
            f"{'; '.join(unfinished)}. Mend that and run the same again, which resumes; {ACCEPT}"
        )
    return folders


def with_available_alternatives(params: P) -> P:
    """The parameters with the number of alternatives that the draft's server returns, where they allow fewer.

    So every manifest holds the K in use.

    Raises:
        UserError: the server returns fewer than two.
    """
    if params.if_fewer_alternatives == "refuse" or not backend_type(params.draft_model).served:
        return params
    backend = LoadedModels(params, ["draft"])["draft"]
    if (available := backend.vocab_size) >= params.k_store:
        return params
    if available < 2:
        backend.probe(params.k_store, required=True)
    return params.model_copy(update={"k_store": available, "k": min(params.k, available)})


def load_samples(params: Params, task: str) -> list[Sample]:
    """The samples of a task that a stage with these parameters works on."""
    samples = registry.load_task(task, resolve(params.data_root))
    samples = samples[: params.limit] if params.limit else samples
    return sample.arranged(samples, params.option_order, params.option_seed)


def threshold_of(params: AgentParams) -> float:
    """The gate's threshold: as given, else from the operating point that notebook 04_threshold wrote.

    Raises StageError when that file is missing, ConfigError when it holds no threshold.
    """
    given = params.threshold
    return read_operating_point(params.threshold_from)["threshold"] if given is None else given


def preview_drafts(
    params: DraftParams, samples: Sequence[Sample]
) -> list[tuple[DraftRecord, Evidence | None]]:
    """What the stage would record for these samples (in order). Nothing is stored; the model stays loaded."""
    params = with_available_alternatives(params)
    models = LoadedModels(params, ["draft"])
    results = _drafts(params, prompt_sets.load(params.prompts), models, samples)
    drafts = {r.id: (r, e) for r, e in _none_held(results)}
    return [drafts[s.id] for s in samples]


def preview_agents(
    params: AgentParams, samples: Sequence[Sample], arm: str = "baseline"
) -> list[AgentRecord]:
    """What one arm would record for these samples (in order). Nothing is stored; the models stay loaded."""
    params = with_available_alternatives(params)
    way = params.arm(arm)
    models = LoadedModels(params, _roles(params, way))
    threshold = threshold_of(params) if way.run_mode == "gated" else None
    drafts: dict[str, DraftRecord] = {}
    if way.run_mode == "collect":
        for task in sorted({s.task for s in samples}):
            of_task = [s for s in samples if s.task == task]
            drafts |= _drafts_of_stage_01(params, task, of_task).records
    wording = prompt_sets.load(params.prompts)
    results = _agents(params, way, wording, models, threshold, drafts, samples)
    records = {r.id: r for r, _ in _none_held(results)}
    return [records[s.id] for s in samples]


def _none_held(results: Done) -> Iterator[tuple[Record, Evidence | None]]:
    with closing(results):
        for record, evidence in results:
            if isinstance(record, Held):
                raise StageError(f"{record.id}: {record.failure.message}")
            yield record, evidence


def _drafts(params: DraftParams, wording: PromptSet, models: LoadedModels, samples: Sequence[Sample]) -> Done:
    return run_drafts(
        samples,
        backend=models["draft"],
        prompts=wording,
        drafting=Drafting(params.max_new_tokens, params.k_store, params.k, params.slope, params.layers),
        batch_size=params.batch_size,
        concurrent=_served(models["draft"]),
        accept_failures=params.accept_failures,
    )


def _agents(
    params: AgentParams,
    arm: Arm,
    wording: PromptSet,
    models: LoadedModels,
    threshold: float | None,
    drafts: Mapping[str, DraftRecord] | None,
    samples: Sequence[Sample],
) -> Done:
    large = adapt(models["agent"], wording)
    small = adapt(models["draft"], wording) if "draft" in models.roles else None
    specreason = arm.run_mode == "specreason"
    make_agent = agent_factory(
        params.agent,
        spec=large.image_spec,
        prompts=wording,
        max_turns=params.max_turns,
        max_new_tokens=params.max_new_tokens,
        sandbox=_sandbox(params),
        crop=params.crop,
        specreason=SpecReason(small.image_spec, params.specreason_threshold) if specreason else None,
    )
    return run_funnel(
        samples,
        mode=arm.run_mode,
        agent_backend=large,
        make_agent=make_agent,
        prompts=wording,
        draft_backend=small,
        drafting=Drafting(params.draft_max_new_tokens, params.k_store, params.k, params.slope),
        router=None if params.router == "none" else Router(params.router, params.router_max_new_tokens),
        gate=Gate(threshold, params.score) if arm.run_mode == "gated" else None,
        score=params.score,
        batch_size=params.batch_size,
        agent_batch_size=arm.agent_batch_size,
        concurrent=arm.batched and (params.concurrent or _served(large, small)),
        reuse=arm.batched,
        drafts=drafts,
        without_tool=arm.without_tool,
        router_small=arm.router_small,
        accept_failures=params.accept_failures,
    )


@dataclass(frozen=True)
class _Stage:
    """A stage of one task: its name, the type of its records, and what they are made from."""

    name: str
    task: str
    record_type: type[Record]
    config: Mapping[str, object]
    inputs: Mapping[str, str]


def _sandbox(params: Params) -> Sandbox | None:
    """Where the agent's programs run; None where it writes none. Raises UserError where they cannot be confined."""
    kind = AGENTS.get(getattr(params, "agent", ""))
    return _tried_sandbox(params.sandbox) if kind and kind.tool.needs_sandbox else None


_tried_sandbox = cache(Sandbox)  # trying the confinement out takes a moment: once per process


def _served(*backends: Backend | None) -> bool:
    """Whether any of these answers many requests at a time, as servers do."""
    return any(getattr(backend, "max_in_flight", 0) for backend in backends)


def _run(
    params: Params,
    stage: _Stage,
    samples: Sequence[Sample],
    models: LoadedModels,
    work: Callable[[Sequence[Sample]], Done],
    progress: Progress,
    text: str,
    shard: Shard | None,
) -> Path:
    """Do what is missing in a stage folder and finish it; what shards have done is not missing."""

    def store_of(run: str, samples: Sequence[Sample]) -> StageStore:
        return StageStore(
            stage_dir(run, stage.name, stage.task),
            stage=stage.name,
            task=stage.task,
            record_type=stage.record_type,
            config=stage.config,
            expected_ids=[s.id for s in samples],
            inputs={**stage.inputs, **_inputs(samples, models)},
            if_changed=params.if_changed,
        )

    run, shards = params.run, []
    if shard is None:
        store = store_of(run, samples)
        shards = [(part, store_of(part.run(run), part.of(samples))) for part in Shard.all_of(run)]
    else:
        samples = shard.of(samples)
        store = store_of(shard.run(run), samples)
    with store:
        merged = {}
        for part, other in shards:
            if taken := store.adopt(other):
                machine = read_manifest(other.folder, stage.name, stage.task).environment
                merged[str(part)] = {"records": taken} | {k: machine.get(k) for k in ("cpu", "gpu", "models")}
        done = store.done_ids
        todo = [s for s in samples if s.id not in done]
        progress(len(done), len(samples), text)
        timing = {"load_s": 0.0, "warmup_s": 0.0, "session_s": 0.0}
        if todo:  # a stage that is complete needs no model
            timing |= models.load()
            start = time.perf_counter()
            _work_off(todo, store, work, lambda: progress(len(store.records), len(samples), text))
            timing["session_s"] = time.perf_counter() - start
        timing["wall_s"] = sum(record.wall_s for record in store.records.values())
        setup = {"models": models.info()} | ({"shards": merged} if merged else {})
        if sandbox := _sandbox(params):
            setup["sandbox"] = sandbox.info()
        if params.accept_failures:
            setup["accept_failures"] = True
        store.finish(timing, environment() | setup)
    return store.folder


def _work_off(
    todo: Sequence[Sample],
    store: StageStore,
    work: Callable[[Sequence[Sample]], Done],
    report: Callable[[], None],
) -> None:
    """Do the samples and store their records. Those held back are done again as long as others succeed.

    Raises:
        _HeldBack: samples are left.
    """
    gone = False
    while todo and not gone:
        held: dict[str, Failure] = {}
        before, in_a_row = len(store.records), 0
        with interruptible() as raise_if_interrupted, closing(work(todo)) as results:
            for result, evidence in results:
                if isinstance(result, Held):
                    held[result.id] = result.failure
                    in_a_row += 1
                else:
                    store.append(result, evidence)
                    in_a_row = 0
                    report()
                raise_if_interrupted()
                if gone := in_a_row >= GIVE_UP_AFTER:
                    break
        todo = [s for s in todo if s.id in held] if len(store.records) > before else ()
    if held:
        kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(f.type for f in held.values()).items())
        reason = next(iter(held.values())).message
        stopped = f", and work stopped after {GIVE_UP_AFTER} in a row" if gone else ""
        done = f"{len(store.records)} of {len(store.expected_ids)} samples are done"
        raise _HeldBack(
            f"{shown(store.folder)}: {done}; {len(held)} held back{stopped}, through no fault of theirs "
            f"({kinds}; the first: {reason})",
            gone,
        )


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Gives a function that raises KeyboardInterrupt if a Ctrl-C inside was lost.

    Python drops an exception that arises in the callback of a weak reference or in a finaliser. Ctrl-C is one.
    """
    interrupted = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def raise_if_interrupted() -> None:
        if interrupted:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raise_if_interrupted  # another handler takes Ctrl-C
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield raise_if_interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _roles(params: AgentParams, arm: Arm) -> list[str]:
    """Which models an arm uses."""
    router_small = arm.router_small or (arm.run_mode == "collect" and params.router == "small")
    small = arm.run_mode in ("gated", "specreason") or router_small
    return ["draft", "agent"] if small else ["agent"]


def _common_inputs(wording: PromptSet) -> dict[str, str]:
    """Hashes of the code and the wording behind every record of a stage."""
    return {"code": code_hash("inference.stages"), "prompts": text_hash(wording.model_dump_json())}


def _inputs(samples: Sequence[Sample], models: LoadedModels) -> dict[str, str]:
    """Hashes of one stage folder's samples and models. No stage here reads the right answers."""
    sizes = {path: path.stat().st_size for path in {s.image.path for s in samples} if path.exists()}
    data = (f"{s.id} {s.question} {s.options} {s.image.path.name} {sizes.get(s.image.path)}" for s in samples)
    inputs = {"data": text_hash(data)}
    return inputs | {f"{role}_model": models.fingerprints[role] for role in models.roles}


def _drafts_of_stage_01(params: AgentParams, task: str, samples: Sequence[Sample]) -> StageData[DraftRecord]:
    """The finished drafts of a task. Raises StageError when missing, or drafted with other parameters."""
    drafts = read_stage(params.run, DRAFT_STAGE, task, DraftRecord)
    again = f"run {notebook_of(DRAFT_STAGE)} again with the same"
    config = params.stage_config()
    for name in ("draft_model", "prompts", "data_root", "option_order", "option_seed", "k", "slope"):
        default = DraftParams.model_fields[name].default  # what drafts older than a parameter were made with
        drafted_with = drafts.manifest.config.get(name, default)
        if drafted_with != config[name]:
            raise StageError(
                f"{shown(drafts.folder)} was made with {name} = {drafted_with!r}, but this stage has "
                f"{config[name]!r}; {again}"
            )
    missing = [s.id for s in samples if s.id not in drafts.records]
    if missing:
        raise StageError(
            f"{shown(drafts.folder)} lacks {len(missing)} of {len(samples)} samples (first {missing[0]!r}); "
            f"{again} limit"
        )
    return drafts
