"""Notebooks 01 and 02 without the notebook: parameters in, finished stage folders out.

Models are loaded once per process and reused over tasks, arms and calls. Every task (and arm) is a stage folder
of its own, resumed by sample id after any interruption. The arms of a task take turns (see `turns`). `timing` in a
manifest:

    load_s        loading the models, where this stage was the first to need them
    warmup_s      their first, throw-away answers
    session_s     the turns of this session, bookkeeping and disk included
    cpu_s         processor seconds of this process in them
    others_cpu_s  processor seconds of all other processes meanwhile, on the cores that this one may use
    wall_s        sum of the records' wall_s, over all sessions: what the method cost

Beside `baseline` a part of its samples is timed once more (`clock_share`): the A/A line, a folder of its own
(`CLOCK_STAGE`). Both timings are of the same code, so what they differ by is the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
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
from ..runs.arms import CLOCK_STAGE, DRAFT_STAGE, Arm, in_clock_slice
from ..runs.evidence import Evidence
from ..runs.provenance import code_hash, environment, text_hash
from ..runs.reading import StageData, read_manifest, read_stage
from ..runs.records import AgentRecord, DraftRecord, Record
from ..runs.shards import Shard
from ..runs.stage import IfChanged, StageStore
from ..tasks import registry, sample
from ..tasks.pictures import MirroredImage
from ..tasks.sample import Sample
from ..tools.sandbox import Sandbox
from .funnel import Drafting, Gate, Held, Router, run_drafts, run_funnel
from .loaded_models import LoadedModels, Params
from .turns import Done, HeldBack, Work, take_turns

P = TypeVar("P", DraftParams, AgentParams)
Progress = Callable[..., None]


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

    def draft(task: str) -> list[Path]:
        samples = load_samples(params, task)
        work = partial(_drafts, params, wording, models)
        stage = _Stage(DRAFT_STAGE, task, DraftRecord, params.stage_config(), common, models, work, samples)
        return _run(params, [stage], samples, progress, task, shard)

    return _each(partial(draft, task) for task in params.tasks)


def run_agent_stage(
    params: AgentParams, progress: Progress = _silent, shard: Shard | None = None
) -> list[Path]:
    """Notebook 02: every arm of `params.arms` on every task, in turns. Returns the finished stage folders of the arms.

    Arguments and errors as `run_draft_stage`; the progress text is "task · arm, arm". Raises StageError naming the
    notebook to run first where `collect` lacks its drafts or `gated` its threshold.
    """
    params = with_available_alternatives(params)
    wording = prompt_sets.load(params.prompts)
    arms = [params.arm(name) for name in params.arms]
    models = {arm: LoadedModels(params, _roles(params, arm)) for arm in arms}
    threshold = threshold_of(params) if any(arm.run_mode == "gated" for arm in arms) else None
    common = _common_inputs(wording)

    def stage_of(task: str, arm: Arm, samples: Sequence[Sample]) -> _Stage:
        drafts = _drafts_of_stage_01(params, task, samples) if arm.run_mode == "collect" else None
        inputs = common | ({"drafts": drafts.sha256} if drafts else {})
        config = params.arm_config(arm.name, threshold)
        work = partial(_agents, params, arm, wording, models[arm], threshold, drafts and drafts.records)
        # the threads of a concurrent arm would work on while another arm has its turn
        pauses = not (arm.batched and (params.concurrent or models[arm].served))
        return _Stage(arm.stage, task, AgentRecord, config, inputs, models[arm], work, samples, pauses)

    def run_arms(number: int, task: str) -> list[Path]:
        samples = load_samples(params, task)
        stages = [stage_of(task, arm, samples) for arm in arms]
        again = [s for s in samples if in_clock_slice(s.id, params.clock_share)]
        if again and "baseline" in params.arms:
            twin = stages[params.arms.index("baseline")]
            config = {**twin.config, "block": params.batch_size}
            stages.append(replace(twin, name=CLOCK_STAGE, config=config, samples=again))
        return _run(params, stages, samples, progress, f"{task} · {', '.join(params.arms)}", shard, number)

    return _each(partial(run_arms, number, task) for number, task in enumerate(params.tasks))


def _each(works: Iterable[Callable[[], list[Path]]]) -> list[Path]:
    """The folders of all stages. A stage with samples held back does not keep the next ones from being done."""
    folders, unfinished = [], []
    for work in works:
        try:
            folders += work()
        except HeldBack as error:
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
    samples = sample.arranged(samples, params.option_order, params.option_seed)
    if getattr(params, "mirrored", False):
        samples = [replace(s, image=MirroredImage(s.image.path, s.image)) for s in samples]
    return samples


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
    """A stage of one task: its name, the type of its records, what they are made from, and how.

    `work` gives the results of samples; `pauses`: see `turns.Work`.
    """

    name: str
    task: str
    record_type: type[Record]
    config: Mapping[str, object]
    inputs: Mapping[str, str]
    models: LoadedModels
    work: Callable[[Sequence[Sample]], Done]
    samples: Sequence[Sample]
    pauses: bool = True

    def store(self, run: str, samples: Sequence[Sample], if_changed: IfChanged) -> StageStore:
        """The folder for some of the samples, in a run or in one of its shards."""
        return StageStore(
            stage_dir(run, self.name, self.task),
            stage=self.name,
            task=self.task,
            record_type=self.record_type,
            config=self.config,
            expected_ids=[s.id for s in samples],
            inputs={**self.inputs, **_inputs(samples, self.models)},
            if_changed=if_changed,
        )


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
    stages: Sequence[_Stage],
    samples: Sequence[Sample],
    progress: Progress,
    text: str,
    shard: Shard | None,
    number: int = 0,
) -> list[Path]:
    """Do what is missing in the stage folders of a task and finish them; what shards have done is not missing.

    Returns the folders but for that of the A/A line. `number`: of the task, which decides the order of turns.

    Raises:
        HeldBack: a folder cannot be finished now. The others are.
    """
    run = shard.run(params.run) if shard else params.run
    samples = shard.of(samples) if shard else list(samples)
    ids = {s.id for s in samples}
    with ExitStack() as stack:
        works, merged, timings = [], [], []
        for stage in stages:
            own = [s for s in stage.samples if s.id in ids]
            store = stack.enter_context(stage.store(run, own, params.if_changed))
            merged.append({} if shard else _adopt_shards(stage, store, params, samples))
            todo = [s for s in own if s.id not in store.done_ids]
            works.append(Work(store, todo, stage.work, stage.pauses))
        total = sum(len(work.store.expected_ids) for work in works)

        def report() -> None:
            progress(sum(len(work.store.records) for work in works), total, text)

        report()
        for stage, work in zip(stages, works, strict=True):
            loading = stage.models.load() if work.todo else {}  # a stage that is complete needs no model
            timings.append({"load_s": 0.0, "warmup_s": 0.0} | loading)
        if any(work.todo for work in works):
            rounds = -(-len(samples) // params.batch_size)
            take_turns(works, [s.id for s in samples], params.batch_size, report, number * rounds)
        for stage, work, timing, shards in zip(stages, works, timings, merged, strict=True):
            if work.complete:
                _finish(params, stage, work, timing, shards)
        if left := [work for work in works if not work.complete]:
            raise HeldBack("; ".join(work.fault for work in left), any(work.gone for work in left))
    return [work.store.folder for stage, work in zip(stages, works, strict=True) if stage.name != CLOCK_STAGE]


def _adopt_shards(
    stage: _Stage, store: StageStore, params: Params, samples: Sequence[Sample]
) -> dict[str, dict]:
    """Take over what finished shards have done; by shard, how many records, and their machine."""
    merged = {}
    for part in Shard.all_of(params.run):
        ids = {s.id for s in part.of(samples)}
        own = [s for s in stage.samples if s.id in ids]
        other = stage.store(part.run(params.run), own, params.if_changed)
        if taken := store.adopt(other):
            machine = read_manifest(other.folder, stage.name, stage.task).environment
            merged[str(part)] = {"records": taken} | {k: machine.get(k) for k in ("cpu", "gpu", "models")}
    return merged


def _finish(params: Params, stage: _Stage, work: Work, timing: dict[str, float], shards: dict) -> None:
    wall_s = sum(record.wall_s for record in work.store.records.values())
    timing |= work.meter.seconds | {"wall_s": wall_s}
    setup = {"models": stage.models.info()} | ({"shards": shards} if shards else {})
    if sandbox := _sandbox(params):
        setup["sandbox"] = sandbox.info()
    if params.accept_failures:
        setup["accept_failures"] = True
    work.store.finish(timing, environment() | setup)


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
