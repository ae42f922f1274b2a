"""The parameters of every notebook: the single definition of their names, types, defaults and allowed values.

A notebook's `parameters` cell repeats the part of its model that a reader may want to change (`shown`). What it leaves
out keeps the model's default and can still be passed: by papermill, by `speceyes stage --set`, or from a config, whose
keys are these parameters again. Every value is checked strictly, so 8 is not "8" and True is not 1.

The file has one subject and is not split: most parameters are shared by several notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from .agents.registry import AGENTS
from .errors import ConfigError, nearest
from .gating.gate import NOTHING, PASSES
from .gating.scores import GATE_SCORES
from .gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES
from .models.endpoint import parse_endpoints
from .models.registry import backend_type
from .paths import is_run_name
from .runs.arms import ARMS, BATCHED, DEFAULT_ARMS, ROUTERS, Arm
from .runs.own_scores import names_of_scores
from .runs.recorded_run import tasks_of
from .stats.resampling import Bootstrap
from .tasks.hub import ITEMS
from .tasks.images import Crop
from .tasks.registry import HARD_BELOW, OPTION_TASKS, REPORTED_TASKS, TASKS

# the validation run's threshold, by the name of the embedded run; an empty threshold_from means there is none
OPERATING_POINT = "data/runs/demo_validation/04_threshold/operating_point.json"
RECORDED_TRAINING = "data/demo/recorded_recipe.tar.xz"  # runs of the recipe in miniature
RECORDED_TOOLS = "data/demo/recorded_tools.tar.xz"  # the embedded study of tool speculation
TOOL_PROFILES = ("long_thinking", "science", "research", "coding")
RECIPE_ARMS = ("bonus", "no_bonus", "rate_too_high")


def field(default: Any, description: str, key: str | None = "", **limits: Any) -> Any:
    """A field of a parameter model.

    Args:
        default: its default; `...` where the models that share it have different ones.
        description: its comment in the parameters cell.
        key: where a config gives it ("gate.k"). Empty: its name in the `section` of its model. None: nowhere, because
            the plan of the run decides it.
        limits: of `pydantic.Field`, such as `ge`.
    """
    return Field(default, description=description, json_schema_extra={"key": key}, **limits)


def _known(what: str, valid: Collection[str], if_empty: Collection[str] | None = None) -> AfterValidator:
    """Accepts a known name, or a list of different ones. An empty list stands for `if_empty`; None refuses it."""
    return AfterValidator(lambda value: _checked(value, what, valid, if_empty))


def _checked(value: Any, what: str, valid: Collection[str], if_empty: Collection[str] | None) -> Any:
    names = [value] if isinstance(value, str) else value
    for name in names:
        if name not in valid:
            raise ValueError(f"no {what} {name!r}{nearest(name, valid)}; valid are {', '.join(valid)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a {what} is named twice")
    if not names and if_empty is None:
        raise ValueError(f"name at least one {what}")
    return value or list(if_empty)


def _task_of_run(value: list[str], info: ValidationInfo) -> list[str]:
    """Tasks of the benchmarks, or of the run. None: the paper's, or the run's where it has none of the benchmarks'."""
    held = tasks_of(info.data["run"]) if "run" in info.data else []
    own = [task for task in held if task not in TASKS]
    return _checked(value, "task", (*TASKS, *own), own if own == held and own else REPORTED_TASKS)


def _score_of_run(value: str, info: ValidationInfo) -> str:
    """A score of the evidence, or one that was added to the run."""
    own = names_of_scores(info.data["run"]) if "run" in info.data else ()
    return _checked(value, "score", (*GATE_SCORES, *own), None)


def _plain_name(name: str) -> str:
    if not is_run_name(name):
        raise ValueError("must be a plain folder name")
    return name


def _between_0_and_1(values: list[float]) -> list[float]:
    for value in values:
        if not 0 < value < 1:
            raise ValueError(f"{value} is no share; give numbers between 0 and 1")
    return values


def _empty_or(read: Callable[[str], Any]) -> AfterValidator:
    def check(text: str) -> str:
        try:
            if text:
                read(text)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(check)


Model = Annotated[str, Field(min_length=1), _empty_or(lambda model: backend_type(model).identity(model))]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]

# ------------------------------------------------------------------ parameters that several notebooks share

Run = Annotated[
    str, AfterValidator(_plain_name), field(..., "name of the run: its folder in data/runs", "name")
]
DataRoot = Annotated[
    str, field(..., "folder of the benchmarks in their official layouts", "data.root", min_length=1)
]
OptionSeed = Annotated[
    int, field(..., "seed of shuffled options, mixed with each sample's id", "data.option_seed", ge=0)
]
AgentModel = Annotated[
    Model, field(..., "M_L, large, with tools: its folder, or endpoints that serve it", "models.agent")
]
DraftTokens = Annotated[int, field(..., "new tokens of a draft at most", "draft.max_new_tokens", ge=1)]
AgentsTogether = Annotated[
    int, field(..., "agents at once in collect and the _batched arms", "agent.batch_size_batched", ge=2)
]
Arms = Annotated[list[str], _known("arm", ARMS), field(..., "ways to run; _batched: many at once", "arms")]
Score = Annotated[
    str, _known("score", GATE_SCORES), field(..., "score that is compared with the threshold", "gate.score")
]
ScoreOfRun = Annotated[
    str, AfterValidator(_score_of_run), field(..., "score that is compared with the threshold", "gate.score")
]
TasksOfRun = Annotated[
    list[str],
    AfterValidator(_task_of_run),
    field([], "benchmark/split, in this order; empty: those of the paper", "data.tasks"),
]
K = Annotated[int, field(..., "alternatives in the separability (the paper's K)", "gate.k", ge=2)]
Slope = Annotated[float, field(..., "slope of the sigmoid (the paper's a)", "gate.slope", gt=0)]
ThresholdFrom = Annotated[str, field(..., "from 04_threshold", key=None)]
Protocol = Annotated[
    Literal["strict", "paper"],
    field(..., "strict: errors count as wrong; paper: the published rules to the letter"),
]
Seed = Annotated[int, field(..., "seed of everything random here", ge=0)]


class Params(BaseModel):
    """Base of all: literals only (what papermill can pass), nothing unknown, no silent conversion.

    section: where a config gives the parameters that name no key. shown: names in the parameters cell, in order;
    empty: all.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )
    section: ClassVar[str] = ""
    shown: ClassVar[tuple[str, ...]] = ()


class NotebookParams(Params):
    """Parameters of a notebook that works on a run."""

    run: Run = "demo"

    def stage_config(self) -> dict[str, Any]:
        """What the results of one task depend on: the parameters without the run's name and the task list.

        A served model is named without the place it is served at (`BackendType.identity`).
        """
        how = {"run", "tasks", "if_changed", "if_fewer_alternatives", "accept_failures"}
        values = self.model_dump(exclude=how)
        models = {key: v for key, v in values.items() if key.endswith("_model")}
        return values | {key: backend_type(model).identity(model) for key, model in models.items()}


class StageParams(NotebookParams):
    """Parameters of a notebook that works on the tasks of a run and writes a stage of it."""

    tasks: Annotated[list[str], _known("task", TASKS, if_empty=REPORTED_TASKS)] = field(
        [], "benchmark/split, in this order; empty: those of the paper", "data.tasks"
    )
    if_changed: Literal["refuse", "restart"] = field(
        "refuse", "results made from something else: refuse to mix, or restart the stage", key=None
    )


class AskingParams(StageParams):
    """What the notebooks that ask models have in common."""

    accept_failures: bool = field(
        False, "faults of server, memory, disk or sandbox become results; else asked again", key=None
    )


class ResampledParams(StageParams):
    """What the notebooks with bootstrap intervals have in common."""

    bootstrap: int = field(2000, "resamples behind the intervals", ge=100)
    seed: Seed = 0

    @property
    def resampling(self) -> Bootstrap:
        """The bootstrap with this number of resamples and this seed."""
        return Bootstrap(draws=self.bootstrap, seed=self.seed)


class ModelRunParams(AskingParams):
    """What the notebooks that run models have in common: samples, the draft model, and where it is computed."""

    data_root: DataRoot = "data/demo/benchmark"
    limit: int = field(0, "samples per task, from the front; 0: all", "data.limit", ge=0)
    draft_model: Model = field(
        "data/demo/models/draft",
        "M_S, small, tool-free: its folder, or endpoints that serve it",
        "models.draft",
    )
    prompts: str = field("demo", "prompt set: a shipped name or a .yaml file", "prompts", min_length=1)
    batch_size: Count = field(16, "queries per batch of router and draft (the paper's B)", "draft.batch_size")
    k_store: int = field(
        128, "alternatives stored per token, at least the largest K analysed", "draft.k_store", ge=2
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        "float32", "weights and arithmetic; auto: as stored", "models.dtype"
    )
    device: str = field(
        "auto",
        "cpu, mps, cuda, cuda:N, spread (over all GPUs); auto: best, a GPU per model",
        "models.device",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?|spread)$",
    )


class FunnelParams(ModelRunParams):
    """What drafting and the funnel have in common: the order of options, separability, the size of a view."""

    option_order: str = field(
        "as_published",
        "as_published, shuffled, or rotated_N: each option N places later",
        "data.option_order",
        pattern=r"^(as_published|shuffled|rotated_[1-9]\d?)$",
    )
    option_seed: OptionSeed = 0
    if_fewer_alternatives: Literal["refuse", "lower"] = field(
        "refuse",
        "where a server gives fewer than k_store: refuse, or lower both",
        "draft.if_fewer_alternatives",
    )
    k: K = DEFAULT_K
    slope: Slope = DEFAULT_SLOPE
    attn: Literal["auto", "flash_attention_2", "sdpa", "eager"] = field(
        "auto", "auto: flash-attn 2 on a GPU where installed, else sdpa", "models.attn"
    )
    min_pixels: Count | None = field(
        None, "smallest model view in pixels; None: the model's own", "models.min_pixels"
    )
    max_pixels: Count | None = field(
        None, "largest model view in pixels; None: the model's own", "models.max_pixels"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.k > self.k_store:
            raise ValueError(f"k = {self.k} is more than k_store = {self.k_store}; lower k or raise k_store")
        low, high = self.min_pixels, self.max_pixels
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"min_pixels = {low} is more than max_pixels = {high}; lower one or raise the other"
            )
        return self


class GateParams(Params):
    """The gate of a run, apart from K and slope."""

    router: Annotated[str, _known("router", ROUTERS)] = field(
        "large", "model that answers Phase I: large, small, or none (every sample is drafted)", "gate.router"
    )
    score: Score = "min"
    threshold: float | None = field(
        None, f"accept drafts {PASSES}; None: read it from threshold_from", "gate.threshold", ge=0, le=NOTHING
    )
    threshold_from: ThresholdFrom = OPERATING_POINT


# ------------------------------------------------------------------ the pipeline


class PrepareParams(StageParams):
    """00_prepare_data: generate the embedded benchmark and its validation set, or check what is there."""

    section = "data"
    shown = ("run", "tasks", "kind", "fetch", "data_root", "validation_root", "seed", "validation_seed")

    kind: Literal["demo", "check"] = field(
        "demo", "demo: generate the embedded benchmark; check: read the data given"
    )
    fetch: Annotated[list[str], _known("item", ITEMS, if_empty=())] = field(
        [], "what to fetch from the hub first (speceyes fetch)"
    )
    data_root: DataRoot = "data/demo/benchmark"
    seed: int = field(2026, "seed of the embedded benchmark", ge=0)
    validation_root: str = field(
        "data/demo/validation", "folder of the validation set; empty: none", "validation.root"
    )
    validation_seed: int = field(4052, "seed of the validation set", "validation.seed", ge=0)

    @model_validator(mode="after")
    def _kept_apart(self) -> Self:
        if self.validation_root and self.validation_root == self.data_root:
            raise ValueError("validation_root must be another folder than data_root")
        if self.kind == "demo" and self.validation_root and self.validation_seed == self.seed:
            raise ValueError(
                "validation_seed must differ from seed: thresholds are never chosen on the benchmark"
            )
        return self


class DraftParams(FunnelParams):
    """01_small_model_inference: the small model answers every sample, evidence kept."""

    section = "draft"
    shown = (
        *("run", "tasks", "data_root", "limit", "draft_model", "prompts"),
        *("batch_size", "max_new_tokens", "k_store", "k", "slope", "layers"),
    )

    max_new_tokens: DraftTokens = 20
    layers: int = field(0, "intermediate layers to record, evenly spaced (local models only); 0: none", ge=0)

    mirrored: bool = field(
        False, "pictures mirrored left to right; study_second_draft drafts so in a run of its own", key=None
    )

    @model_validator(mode="after")
    def _layers_are_local(self) -> Self:
        if self.layers and backend_type(self.draft_model).served:
            raise ValueError(
                f"layers = {self.layers}, but draft_model is served, and no server returns what its layers predict; "
                "set layers = 0, or name the folder of a local model"
            )
        return self

    def stage_config(self) -> dict[str, Any]:
        """See `NotebookParams.stage_config`. What is off has no key, as in runs from before there was a choice."""
        return {n: v for n, v in super().stage_config().items() if v or n not in ("layers", "mirrored")}


class AgentParams(FunnelParams, GateParams):
    """02_gated_agent_eval: one or more arms, which take turns on the samples in one kernel.

    An arm is named after its run mode; `_batched` lets up to `agent_batch_size_batched` agents advance together
    instead of `agent_batch_size` (1 = the paper's setting). collect routes and runs the agent on every sample, takes
    the drafts of stage 01, and is batched, since its answers count and `baseline` times the same agents one by one.
    gated is the real funnel; baseline sends every sample to the agent; so does specreason, where the small model
    proposes each step for the large one to score. Arms can be added or repeated one by one: each has a stage folder,
    and `arm_config` holds only what that arm depends on.
    """

    section = "agent"
    shown = (
        *("run", "tasks", "arms", "data_root", "limit", "draft_model", "agent_model", "prompts"),
        *("agent", "router", "score", "threshold"),
    )

    arms: Arms = list(DEFAULT_ARMS)
    agent_model: AgentModel = "data/demo/models/agent"
    agent: Annotated[str, _known("agent", AGENTS)] = field(
        "deepeyes",
        "how the large model works: deepeyes zooms by tool calls, thyme writes Python",
        "agent.kind",
    )
    sandbox: Literal["enforced", "off"] = field(
        "enforced", "thyme: confine the programs it writes; off: only in a container of your own"
    )
    crop: Crop = field(
        "outwards", "how a box becomes pixels: outwards (none is lost), or original (the authors' truncation)"
    )
    router_max_new_tokens: Count = field(10, "new tokens of the router at most", "gate.router_max_new_tokens")
    draft_max_new_tokens: DraftTokens = 20
    agent_batch_size: Count = field(
        1, "agents at once in baseline and gated; 1: the paper", "agent.batch_size"
    )
    agent_batch_size_batched: AgentsTogether = 32
    concurrent: bool = field(
        False, "both models at once in collect and the _batched arms (each its own device)"
    )
    max_turns: Count = field(6, "agent turns at most")
    max_new_tokens: Count = field(512, "new tokens of an agent turn at most")
    first_look: bool = field(True, "collect also asks the agent for its answer without the tool")
    router_small: bool = field(
        True, "collect also asks the small model whether a tool would help", "gate.router_small"
    )
    clock_share: float = field(
        0.125,
        "share of the baseline's samples that is timed twice, to measure the clock; 0: none",
        ge=0,
        le=1,
    )
    specreason_threshold: int = field(7, "specreason keeps a proposed step from this score on", ge=0, le=9)

    @model_validator(mode="after")
    def _has_a_threshold(self) -> Self:
        gated = [name for name in self.arms if name.startswith("gated")]
        if gated and self.threshold is None and not self.threshold_from:
            raise ValueError(f"arm {gated[0]!r} needs a threshold: give threshold or threshold_from")
        return self

    def arm(self, name: str) -> Arm:
        """What an arm's name stands for."""
        mode = name.removesuffix(BATCHED)
        collect = mode == "collect"
        batched = collect or name.endswith(BATCHED)
        size = self.agent_batch_size_batched if batched else self.agent_batch_size
        return Arm(name, mode, size, batched, self.first_look and collect, self.router_small and collect)

    def arm_config(self, name: str, threshold: float | None = None) -> dict[str, Any]:
        """The `config` of an arm's stage folder: what its records depend on and nothing else.

        `threshold` is the resolved value that a gated arm uses.
        """
        arm = self.arm(name)
        config = self.stage_config() | {
            "run_mode": arm.run_mode,
            "agent_batch_size": arm.agent_batch_size,
            "first_look": arm.without_tool,
            "router_small": arm.router_small,
            "concurrent": arm.batched and self.concurrent,
        }
        alone = (
            *("router", "router_max_new_tokens", "draft_max_new_tokens"),
            *("score", "k", "slope", "k_store", "if_fewer_alternatives", "batch_size"),
        )
        unused = ("arms", "agent_batch_size_batched", "threshold", "threshold_from", "clock_share")
        unused += {
            "baseline": (*alone, "draft_model", "specreason_threshold"),
            "specreason": alone,
            "collect": ("draft_max_new_tokens", "k_store", "if_fewer_alternatives", "specreason_threshold"),
            "gated": ("specreason_threshold",),
        }[arm.run_mode]
        unused += () if AGENTS[self.agent].tool.needs_sandbox else ("sandbox",)
        if self.crop == "outwards" or AGENTS[self.agent].tool.needs_sandbox:
            unused += ("crop",)  # runs from before there was a choice have no such key
        config = {key: value for key, value in config.items() if key not in unused}
        return config | ({"threshold": threshold} if arm.run_mode == "gated" else {})


class JudgingParams(AskingParams):
    """03_judging: is each answer right, by which rule, under which protocol."""

    section = "judging"
    shown = (
        *("run", "tasks", "arms", "data_root", "protocol"),
        *("judge", "judge_reply_tokens", "judge_all", "human_checks"),
    )

    arms: Arms = list(DEFAULT_ARMS)
    data_root: DataRoot = "data/demo/benchmark"
    protocol: Protocol = "strict"
    judge: Annotated[str, _empty_or(parse_endpoints)] = field(
        "", "endpoint of a judging model for what no rule decides; empty: rules only"
    )
    judge_reply_tokens: int = field(
        64, "tokens of a judge's reply at most; one that thinks needs 2048 or more", ge=1
    )
    judge_all: bool = field(False, "the model also judges what a rule decides, to measure their agreement")
    judge_max_requests: int = field(0, "questions to the model; 0: no limit", ge=0)
    judge_max_tokens: int = field(0, "tokens of prompts and replies together; 0: no limit", ge=0)
    judge_cache: str = field("", "where the model's replies are kept; empty: a file beside the runs")
    human_checks: Literal["apply", "ignore"] = field(
        "apply", "verdicts that people overruled (human_checks.csv of the run)"
    )


class CollectParams(StageParams):
    """What the notebooks that analyse the instrumented arm of a finished run have in common."""

    tasks: TasksOfRun = []
    arm: Literal["collect"] = field("collect", "the instrumented arm that is analysed", key=None)
    score: ScoreOfRun = "min"
    delta_pp: float = field(
        0.0,
        "accuracy in points the gate may cost when the threshold is chosen",
        "gate.delta_pp",
        ge=0,
        le=100,
    )


class ThresholdParams(CollectParams):
    """04_threshold: the threshold a stated rule picks on a validation run, for the gate of another run."""

    section = "gate"
    shown = ("run", "tasks", "score", "delta_pp")

    run: Run = "demo_validation"


class GateAnalysisParams(CollectParams):
    """What the notebooks that analyse the gate of a finished run have in common."""

    section = "confidence"

    threshold_from: ThresholdFrom = OPERATING_POINT
    seed: Seed = 0


class ConfidenceParams(GateAnalysisParams, ResampledParams):
    """04_confidence_analysis: which score knows right drafts from wrong ones, and what no score can see."""

    shown = ("run", "tasks", "score", "modes", "threshold_from", "bootstrap", "seed")

    modes: Annotated[list[str], _known("score", PAPER_SCORES)] = field(
        list(PAPER_SCORES), "scores to compare"
    )


class CertifyingParams(CollectParams):
    """What the notebooks that certify thresholds have in common."""

    risk_target: Share = field(0.05, "certified: share of wrong ones among accepted drafts, at most")
    loss_target: Share = field(0.015, "certified: share of samples accepted and wrong, at most")
    pass_target: Share = field(0.2, "certified: share of wrong drafts that are accepted, at most")
    delta: Share = field(0.1, "how often a bound that is certified with probability may fail")
    repeats: Count = field(20, "random halves that rules are tried on")
    seed: Seed = 0


class CertifiedParams(GateAnalysisParams, CertifyingParams):
    """04_certified_thresholds: what the threshold in use gains and loses, and which thresholds hold on unseen data."""

    shown = (
        *("run", "tasks", "score", "threshold_from", "risk_target", "loss_target", "pass_target"),
        *("delta", "repeats", "seed"),
    )


class OwnResultsParams(CertifyingParams):
    """study_own_results: a gate judged from a table of results, with as few as three columns."""

    section = "own_results"
    shown = ("run", "tasks", "score", "risk_target", "loss_target", "delta", "repeats", "seed")


class LayerGatesParams(GateAnalysisParams, ResampledParams):
    """study_layer_gates: what the layers inside the draft model add to the scores of its output."""

    section = "layer_gates"
    shown = (
        *("run", "tasks", "if_changed", "layers", "score", "threshold_from", "pass_target"),
        *("repeats", "bootstrap", "seed"),
    )

    layers: Count = field(99, "intermediate layers to record where the run has none; 99: all")
    pass_target: Share = field(0.2, "certified: share of wrong drafts that are accepted, at most")
    repeats: Count = field(20, "random divisions that the certificate is tried on")


class CostsParams(GateAnalysisParams):
    """04_costs: when the gate pays, where the time goes, and how many replicas of which model answer most."""

    shown = ("run", "tasks", "score", "threshold_from", "seed")


class FiguresParams(ResampledParams):
    """05_paper_figures: summary, tables and figures of this run, of the reported numbers, or of both."""

    section = "figures"
    tasks: TasksOfRun = []
    shown = ("run", "tasks", "arms", "source", "more_runs", "score", "threshold_from", "bootstrap", "seed")

    arms: Arms = list(DEFAULT_ARMS)
    source: Literal["run", "reported", "both"] = field(
        "both", "numbers shown: of this run, as reported in the paper, or both"
    )
    more_runs: list[str] = field([], "further finished runs for the table, another agent's for example")
    score: ScoreOfRun = "min"
    threshold_from: ThresholdFrom = OPERATING_POINT
    hard_below: float = field(
        HARD_BELOW, "a sample is hard when its target is under this share of the side", gt=0, le=1
    )


# ------------------------------------------------------------------ started by hand: no config gives these


class FidelityParams(ModelRunParams):
    """study_replay_fidelity: the funnel really run at several settings, beside what replay says of them."""

    shown = ("run", "tasks", "limit", "settings")

    run: Run = "fidelity"
    settings: list[str] = field(
        [
            "min > 0.9986",
            "min > 0.97, agents 8",
            "mean > 0.99, K 96, agents 24",
            "log > 0.95, router none",
            "bottom20 > 0.99, K 32, router none, batch 8",
            "min > 0.98, router small, batch 4",
            "min > 0.995, slope 0.5, batch 32, agents 16",
        ],
        "score and threshold, then K, router, batch, slope, agents at once",
        min_length=1,
    )
    agent_model: AgentModel = "data/demo/models/agent"
    agent_batch_size_batched: AgentsTogether = 32


REPORTED_OPTION_TASKS = tuple(task for task in OPTION_TASKS if task in REPORTED_TASKS)
ORDERS = ("rotated_1", "rotated_2", "rotated_3", "shuffled")


class PositionBiasParams(ResampledParams):
    """study_position_bias: the run's drafts again, with the same options in other orders."""

    shown = ("run", "tasks", "if_changed", "orders", "option_seed", "protocol", "bootstrap", "seed")

    tasks: Annotated[list[str], _known("task", TASKS, if_empty=REPORTED_OPTION_TASKS)] = field(
        [], "benchmark/split, in this order; empty: those of the paper with options"
    )
    draft_model: str = field(
        "", "M_S where it was served: its endpoints (a run records none); empty: as recorded"
    )
    orders: Annotated[list[str], _known("order", ORDERS)] = field(list(ORDERS), "beside as_published")
    option_seed: OptionSeed = 0
    protocol: Protocol = "strict"


class SecondDraftParams(GateAnalysisParams, ResampledParams):
    """study_second_draft: what drafting every question twice adds to the gate, per second spent."""

    section = "second_draft"
    shown = ("run", "tasks", "if_changed", "ways", "shares", "score", "threshold_from", "bootstrap", "seed")

    ways: Annotated[list[str], _known("way", (*ORDERS, "mirrored"))] = field(
        ["rotated_1", "mirrored"],
        "how the second draft differs: options in another order, or the picture mirrored",
    )
    shares: Annotated[list[float], AfterValidator(_between_0_and_1)] = field(
        [0.2, 0.3, 0.4, 0.5], "accepted shares at which gates are compared", min_length=1
    )


class ReportedNumbersParams(NotebookParams):
    """study_reported_numbers: what the published numbers say when they are held against each other."""

    run: Run = "paper"
    smallest_share: float = field(0.85, "denominators are searched from this share of a split on", gt=0, le=1)


class TrainParams(Params):
    """train_demo_models: one training run of one of the embedded models."""

    which: Literal["draft", "agent"] = field("draft", "model to train: draft or agent")
    seed: int = field(0, "seed of weights, scenes and questions", ge=0)
    out: str = field(
        "data/runs/models/draft",
        "folder to write; the committed ones are data/demo/models/<which>",
        min_length=1,
    )
    threads: Count = field(2, "CPU threads; one per model trains two models at once")
    held_out: int = field(300, "samples of the final measurement", ge=5)
    smoke: bool = field(False, "two steps a phase: shows that everything runs, learns nothing")

    @property
    def run(self) -> str:
        """How the header names this: training belongs to no run."""
        return f"training of the demo {self.which}"


class GatingExplorerParams(NotebookParams, GateParams):
    """explore_gating: where to begin, and in whose name marks are kept."""

    shown = (
        *("run", "score", "k", "slope", "router", "threshold", "threshold_from"),
        *("link", "author", "review_n", "seed"),
    )

    k: K = DEFAULT_K
    slope: Slope = DEFAULT_SLOPE
    link: str = field("", "a copied link of a view, to begin there; empty: the setting above")
    author: str = field("", "your name, kept with every mark; can be typed in later")
    review_n: Count = field(50, "samples in the random queue for review")
    seed: int = field(0, "seed of the random queue", ge=0)


class TraceExplorerParams(NotebookParams):
    """explore_traces: whose trajectories, and what to put beside them."""

    arm: str = field("collect", "arm whose trajectories are listed", min_length=1)
    text: str = field("", "words to look for, in any case; empty: none")
    other_run: str = field("demo", "run shown beside it; empty: none")
    other_arm: str = field("baseline", "arm of the run beside it")


class TrainingRunParams(NotebookParams):
    """What the notebooks about reinforcement learning have in common: where the runs' logs are."""

    path: str = field(
        RECORDED_TRAINING,
        "logs of verl, or a folder of runs <arm>-<seed>",
        min_length=1,
    )


class ReadTrainingParams(TrainingRunParams):
    """read_training_run: what the logs of any run of verl say."""

    shown = ("run", "path", "window", "smooth", "step")

    run: Run = "training"
    window: Count = field(4, "steps that warnings and phases are averaged over")
    smooth: Count = field(1, "steps of the moving mean of curves; 1: none")
    step: int = field(0, "step whose groups are shown; 0: the last one", ge=0)


class RecipeParams(TrainingRunParams):
    """study_deepeyes_recipe: the recipe in miniature, as recorded or trained here."""

    shown = ("run", "path", "train", "arms", "seeds", "steps", "held_out", "processes")

    run: Run = "recipe"
    train: bool = field(False, "train here (minutes) instead of showing the runs of path")
    arms: Annotated[list[str], _known("arm", RECIPE_ARMS)] = field(
        list(RECIPE_ARMS), "ways to train; rate_too_high destroys the agent"
    )
    seeds: list[int] = field(
        [0, 1, 2], "seeds of prompts and sampling; a run for each arm and seed", min_length=1
    )
    steps: Count = field(32, "steps of each run")
    held_out: Count = field(100, "questions that are answered before and after training")
    processes: Count = field(2, "runs that are trained at once, each on one core")


class TrainingExplorerParams(TrainingRunParams):
    """explore_training: where to begin."""

    run: Run = "training"
    arm: str = field("", "arm to begin with; empty: the first")
    seed: int = field(0, "seed of the run to begin with", ge=0)
    step: int = field(1, "step to begin with", ge=0)


class ToolRunsParams(NotebookParams):
    """What the notebooks about tool speculation have in common: where the recorded runs are."""

    run: Run = "tools"
    path: str = field(
        RECORDED_TOOLS, "a recorded study: its folder, or its packed file; empty: the run's own", key=None
    )


class ToolStudyParams(ToolRunsParams):
    """study_tool_speculation: the embedded study, as recorded or run here."""

    shown = (
        *("run", "path", "run_here", "tasks", "profiles", "validation", "scenes", "tokens_per_s"),
        *("bootstrap", "seed"),
    )

    run_here: bool = field(False, "run the study here (minutes) instead of showing the one of path")
    tasks: Count = field(4, "test tasks of each level")
    levels: list[int] = field([1, 2, 3], "levels of the tasks", min_length=1)
    profiles: Annotated[list[str], _known("profile", TOOL_PROFILES)] = field(
        list(TOOL_PROFILES), "waits of 5, 36, 50, 60 %"
    )
    validation: Count = field(10, "validation tasks of each level, which choose the threshold")
    scenes: int = field(4, "tasks with a picture to look at, for the gate inside vision_analyze", ge=0)
    tokens_per_s: float = field(200.0, "pace of the actor, as of a model behind a server", gt=0)
    guess_tokens_per_s: float = field(500.0, "pace of the speculator", gt=0)
    bootstrap: int = field(2000, "resamples behind the intervals", ge=100)
    seed: Seed = 0

    @property
    def resampling(self) -> Bootstrap:
        """The bootstrap with this number of resamples and this seed."""
        return Bootstrap(draws=self.bootstrap, seed=self.seed)

    def recorded(self) -> dict[str, Any]:
        """The parameters that the records depend on. Profiles may be added to a study later."""
        return self.model_dump(exclude={"run", "path", "run_here", "profiles", "bootstrap"})


class ToolLosslessParams(Params):
    """`speceyes tools lossless`: no speculation against every arm that is lossless, all on the same tasks."""

    run: Run = "tools_lossless"
    split: Literal["validation", "test"] = field("validation", "whose tasks")
    tasks: Count = field(40, "tasks of each level")
    levels: list[int] = field([1, 2, 3], "levels of the tasks", min_length=1)
    threshold: float = field(9.3, "of the gate, as the recorded study chose it")
    tokens_per_s: float = field(1000.0, "pace of the actor, so that guesses come before its call", gt=0)
    guess_tokens_per_s: float = field(4000.0, "pace of the speculator", gt=0)


class ToolExplorerParams(ToolRunsParams):
    """explore_tool_calls: where to begin."""

    profile: str = field("science", "share of the tools: a folder of the study", min_length=1)
    arm: str = field("exact", "arm to begin with", min_length=1)
    task: str = field("", "task to begin with; empty: the first")


# ------------------------------------------------------------------ which notebook has which parameters

# the notebooks that a config runs, in their order
NOTEBOOKS: dict[str, type[StageParams]] = {
    "00_prepare_data": PrepareParams,
    "01_small_model_inference": DraftParams,
    "02_gated_agent_eval": AgentParams,
    "03_judging": JudgingParams,
    "04_threshold": ThresholdParams,
    "04_confidence_analysis": ConfidenceParams,
    "04_certified_thresholds": CertifiedParams,
    "04_costs": CostsParams,
    "05_paper_figures": FiguresParams,
}
BY_HAND: dict[str, type[Params]] = {
    "study_replay_fidelity": FidelityParams,
    "study_position_bias": PositionBiasParams,
    "study_layer_gates": LayerGatesParams,
    "study_second_draft": SecondDraftParams,
    "study_own_results": OwnResultsParams,
    "study_reported_numbers": ReportedNumbersParams,
    "train_demo_models": TrainParams,
    "explore_gating": GatingExplorerParams,
    "explore_traces": TraceExplorerParams,
    "study_deepeyes_recipe": RecipeParams,
    "read_training_run": ReadTrainingParams,
    "explore_training": TrainingExplorerParams,
    "study_tool_speculation": ToolStudyParams,
    "explore_tool_calls": ToolExplorerParams,
}
ALL_NOTEBOOKS: dict[str, type[Params]] = {**NOTEBOOKS, **BY_HAND}
