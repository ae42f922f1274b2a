"""The parameters of every notebook: the single definition of their names, types, defaults and allowed values.

Each notebook's `parameters` cell repeats its model literally (`cell` prints it, `speceyes_lib.run check`
compares), papermill overrides the cell, and the model checks what arrives: strictly, so 8 is not "8" and
True is not 1. A parameter that several notebooks share is one annotated type here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError, nearest
from .gating.gate import PASSES
from .models.endpoint import identity, is_endpoint, parse_endpoints
from .runs.arms import ARMS, BATCHED, DEFAULT_ARMS, Arm
from .tasks.hub import ITEMS
from .tasks.registry import OPTION_TASKS, TASKS

MODES = ("min", "mean", "bottom20", "log")


def _known(what: str, valid: tuple[str, ...]) -> AfterValidator:
    def check(names: list[str]) -> list[str]:
        for name in names:
            if name not in valid:
                hint = nearest(name, valid)
                raise ValueError(f"no {what} {name!r}{hint}; valid are {', '.join(valid)}")
        if not names:
            raise ValueError(f"name at least one {what}")
        if len(set(names)) < len(names):
            raise ValueError(f"a {what} is named twice")
        return names

    return AfterValidator(check)


def _plain_name(name: str) -> str:
    if not name or name != name.strip() or name.startswith(".") or set(name) & set('/\\:*?"<>|{}'):
        raise ValueError("must be a plain folder name")
    return name


def _items(names: list[str]) -> list[str]:
    for name in names:
        if name not in ITEMS:
            raise ValueError(
                f"nothing is called {name!r}{nearest(name, ITEMS)}; there are {', '.join(ITEMS)}"
            )
    return names


def _model(text: str) -> str:
    """A folder, or endpoints that can be read."""
    return _endpoint_or_none(text) if is_endpoint(text) else text


def _endpoint_or_none(text: str) -> str:
    try:
        if text:
            parse_endpoints(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


# ------------------------------------------------------------------ parameters that several notebooks share

Run = Annotated[
    str, AfterValidator(_plain_name), Field(description="name of the run: its folder in data/runs")
]
Tasks = Annotated[list[str], _known("task", TASKS), Field(description="benchmark/split, in this order")]
DataRoot = Annotated[
    str, Field(min_length=1, description="folder of the benchmarks in their official layouts")
]
Limit = Annotated[int, Field(ge=0, description="samples per task, from the front; 0: all")]
IfChanged = Annotated[
    Literal["refuse", "restart"],
    Field(description="results made from something else: refuse to mix, or restart the stage"),
]
OptionOrder = Annotated[
    str,
    Field(
        pattern=r"^(as_published|shuffled|rotated_[1-9]\d?)$",
        description="as_published, shuffled, or rotated_N: each option N places later",
    ),
]
OptionSeed = Annotated[int, Field(ge=0, description="seed of shuffled options, mixed with each sample's id")]
DraftModel = Annotated[
    str,
    AfterValidator(_model),
    Field(min_length=1, description="M_S, small, tool-free: its folder, or endpoints that serve it"),
]
AgentModel = Annotated[
    str,
    AfterValidator(_model),
    Field(min_length=1, description="M_L, large, with tools: its folder, or endpoints that serve it"),
]
IfFewerAlternatives = Annotated[
    Literal["refuse", "lower"],
    Field(description="where a server gives fewer than k_store: refuse, or lower both"),
]
Prompts = Annotated[str, Field(min_length=1, description="prompt set: a shipped name or a .yaml file")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Field(description="weights and arithmetic; auto: as stored"),
]
Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?|spread)$",
        description="cpu, mps, cuda, cuda:N, spread (over all GPUs); auto: best, a GPU per model",
    ),
]
Attention = Annotated[
    Literal["auto", "flash_attention_2", "sdpa", "eager"],
    Field(description="auto: flash-attn 2 on a GPU where installed, else sdpa"),
]
MinPixels = Annotated[
    int | None, Field(ge=1, description="smallest model view in pixels; None: the model's own")
]
MaxPixels = Annotated[
    int | None, Field(ge=1, description="largest model view in pixels; None: the model's own")
]
BatchSize = Annotated[int, Field(ge=1, description="queries per batch of router and draft (the paper's B)")]
DraftTokens = Annotated[int, Field(ge=1, description="new tokens of a draft at most")]
KStore = Annotated[
    int, Field(ge=2, description="alternatives stored per token, at least the largest K analysed")
]
Score = Annotated[Literal["min", "mean", "bottom20", "log"], Field(description="confidence the gate goes by")]
K = Annotated[int, Field(ge=2, description="alternatives in the separability (the paper's K)")]
Slope = Annotated[float, Field(gt=0, allow_inf_nan=False, description="slope of the sigmoid (the paper's a)")]
Threshold = Annotated[
    float | None,
    Field(ge=0, le=1, description=f"accept drafts {PASSES}; None: read it from threshold_from"),
]
ThresholdFrom = Annotated[str, Field(description="from 04_threshold")]
Arms = Annotated[
    list[str],
    _known("arm", ARMS),
    Field(description="ways to run: a run mode, _batched: several agents at once"),
]
Protocol = Annotated[
    Literal["strict", "paper"],
    Field(description="strict: errors count as wrong; paper: the published rules to the letter"),
]
Bootstrap = Annotated[int, Field(ge=100, description="resamples behind the intervals")]
Seed = Annotated[int, Field(ge=0, description="seed of everything random here")]
# the validation run's threshold, by the name of the embedded run; an empty threshold_from means there is none
OPERATING_POINT = "data/runs/demo_validation/04_threshold/operating_point.json"


class NotebookParams(BaseModel):
    """Base of all: literals only (what papermill can pass), nothing unknown, no silent conversion."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    run: Run = "demo"

    def stage_config(self) -> dict[str, Any]:
        """What the results depend on: the parameters without the run's name."""
        return self.model_dump(exclude={"run"})


class StageParams(NotebookParams):
    """Parameters of a notebook that works on the tasks of a run and writes a stage of it."""

    tasks: Tasks = list(TASKS)
    if_changed: IfChanged = "refuse"

    def stage_config(self) -> dict[str, Any]:
        """What the records of one task depend on: the parameters without the run's name and the task list.

        A served model is named without the place it is served at (`endpoint.identity`).
        """
        values = self.model_dump(exclude={"run", "tasks", "if_changed", "if_fewer_alternatives"})
        return {key: identity(v) if key.endswith("_model") else v for key, v in values.items()}


class PrepareParams(StageParams):
    """00_prepare_data: generate the embedded benchmark and its validation set, or check what is there."""

    kind: Annotated[
        Literal["demo", "check"],
        Field(description="demo: generate the embedded benchmark; check: read the data given"),
    ] = "demo"
    fetch: Annotated[
        list[str],
        AfterValidator(_items),
        Field(description="what to fetch from the hub first (speceyes fetch)"),
    ] = []
    data_root: DataRoot = "data/demo/benchmark"
    seed: Annotated[int, Field(ge=0, description="seed of the embedded benchmark")] = 2026
    validation_root: Annotated[str, Field(description="folder of the validation set; empty: none")] = (
        "data/demo/validation"
    )
    validation_seed: Annotated[int, Field(ge=0, description="seed of the validation set")] = 4052

    @model_validator(mode="after")
    def _kept_apart(self) -> Self:
        if self.validation_root and self.validation_root == self.data_root:
            raise ValueError("validation_root must be another folder than data_root")
        if self.kind == "demo" and self.validation_root and self.validation_seed == self.seed:
            raise ValueError(
                "validation_seed must differ from seed: thresholds are never chosen on the benchmark"
            )
        return self


class DraftParams(StageParams):
    """01_small_model_inference: the small model answers every sample, evidence kept."""

    data_root: DataRoot = "data/demo/benchmark"
    limit: Limit = 0
    option_order: OptionOrder = "as_published"
    option_seed: OptionSeed = 0
    draft_model: DraftModel = "data/demo/models/draft"
    prompts: Prompts = "demo"
    batch_size: BatchSize = 16
    max_new_tokens: DraftTokens = 20
    k_store: KStore = 128
    if_fewer_alternatives: IfFewerAlternatives = "refuse"
    k: K = 64
    slope: Slope = 0.6
    dtype: Dtype = "float32"
    device: Device = "auto"
    attn: Attention = "auto"
    min_pixels: MinPixels = None
    max_pixels: MaxPixels = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_k(self.k, self.k_store)
        _check_pixels(self.min_pixels, self.max_pixels)
        return self


class AgentParams(StageParams):
    """02_gated_agent_eval: one or more arms, run one after another in one kernel.

    An arm is named after its run mode; `_batched` lets up to `agent_batch_size_batched` agents advance
    together instead of `agent_batch_size` (1 = the paper's setting, in the gated run and its baseline alike).
    collect routes and runs the agent on every sample and takes the drafts over from stage 01; it is batched,
    since its answers count and `baseline` times the same agents one by one. gated is the real funnel; baseline
    sends every sample to the agent; specreason too, and lets the small model propose each step for the large one
    to score. Each arm has its own stage folder and manifest, and `arm_config` holds only what that arm depends on,
    so arms can be added or repeated one by one.
    """

    arms: Arms = list(DEFAULT_ARMS)
    data_root: DataRoot = "data/demo/benchmark"
    limit: Limit = 0
    option_order: OptionOrder = "as_published"
    option_seed: OptionSeed = 0
    draft_model: DraftModel = "data/demo/models/draft"
    agent_model: AgentModel = "data/demo/models/agent"
    prompts: Prompts = "demo"
    agent: Annotated[
        Literal["deepeyes", "thyme"],
        Field(description="how the large model works: zooms by tool calls, or writes Python"),
    ] = "deepeyes"
    sandbox: Annotated[
        Literal["enforced", "off"],
        Field(description="thyme: confine the programs it writes; off: only in a container of your own"),
    ] = "enforced"
    router: Annotated[
        Literal["large", "small", "none"],
        Field(description="who answers Phase I: the large model, the small one, or nobody (all drafted)"),
    ] = "large"
    router_max_new_tokens: Annotated[int, Field(ge=1, description="new tokens of the router at most")] = 10
    batch_size: BatchSize = 16
    draft_max_new_tokens: DraftTokens = 20
    agent_batch_size: Annotated[
        int, Field(ge=1, description="agents at once in baseline and gated; 1: the paper")
    ] = 1
    agent_batch_size_batched: Annotated[
        int, Field(ge=2, description="agents at once in collect and the _batched arms")
    ] = 32
    concurrent: Annotated[
        bool,
        Field(description="both models at once in collect and the _batched arms (each its own device)"),
    ] = False
    max_turns: Annotated[int, Field(ge=1, description="agent turns at most")] = 6
    max_new_tokens: Annotated[int, Field(ge=1, description="new tokens of an agent turn at most")] = 512
    first_look: Annotated[
        bool, Field(description="collect also asks the agent for its answer without the tool")
    ] = True
    router_small: Annotated[
        bool, Field(description="collect also asks the small model whether a tool would help")
    ] = True
    specreason_threshold: Annotated[
        int, Field(ge=0, le=9, description="specreason keeps a proposed step from this score on")
    ] = 7
    score: Score = "min"
    k: K = 64
    slope: Slope = 0.6
    k_store: KStore = 128
    if_fewer_alternatives: IfFewerAlternatives = "refuse"
    threshold: Threshold = None
    threshold_from: ThresholdFrom = OPERATING_POINT
    dtype: Dtype = "float32"
    device: Device = "auto"
    attn: Attention = "auto"
    min_pixels: MinPixels = None
    max_pixels: MaxPixels = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_k(self.k, self.k_store)
        _check_pixels(self.min_pixels, self.max_pixels)
        gated = [name for name in self.arms if name.startswith("gated")]
        if gated and self.threshold is None and not self.threshold_from:
            raise ValueError(f"arm {gated[0]!r} needs a threshold: give threshold or threshold_from")
        return self

    def arm(self, name: str) -> Arm:
        """What an arm's name stands for."""
        mode = name.removesuffix(BATCHED)
        together = name.endswith(BATCHED) or mode == "collect"
        size = self.agent_batch_size_batched if together else self.agent_batch_size
        collect = mode == "collect"
        extras = {"first_look": self.first_look and collect, "router_small": self.router_small and collect}
        return Arm(name, mode, size, together, **extras)

    def arm_config(self, name: str, threshold: float | None = None) -> dict[str, Any]:
        """The `config` of an arm's stage folder: what its records depend on and nothing else.

        `threshold` is the resolved value that a gated arm uses.
        """
        arm = self.arm(name)
        config = self.stage_config()
        for key in ("arms", "agent_batch_size_batched", "threshold", "threshold_from"):
            del config[key]
        config |= {
            "run_mode": arm.run_mode,
            "agent_batch_size": arm.agent_batch_size,
            "first_look": arm.first_look,
            "router_small": arm.router_small,
            "concurrent": arm.together and self.concurrent,
        }
        alone = (
            *("router", "router_max_new_tokens", "draft_max_new_tokens"),
            *("score", "k", "slope", "k_store", "if_fewer_alternatives", "batch_size"),
        )
        unused = {
            "baseline": (*alone, "draft_model", "specreason_threshold"),
            "specreason": alone,
            "collect": ("draft_max_new_tokens", "k_store", "if_fewer_alternatives", "specreason_threshold"),
            "gated": ("specreason_threshold",),
        }[arm.run_mode]
        unused += ("sandbox",) if self.agent != "thyme" else ()
        config = {key: value for key, value in config.items() if key not in unused}
        return config | ({"threshold": threshold} if arm.run_mode == "gated" else {})


class JudgingParams(StageParams):
    """03_judging: is each answer right, by which rule, under which protocol."""

    arms: Arms = list(DEFAULT_ARMS)
    data_root: DataRoot = "data/demo/benchmark"
    protocol: Protocol = "strict"
    judge: Annotated[
        str,
        AfterValidator(_endpoint_or_none),
        Field(description="endpoint of a judging model for what no rule decides; empty: rules only"),
    ] = ""
    judge_all: Annotated[
        bool, Field(description="the model also judges what a rule decides, to measure their agreement")
    ] = False
    judge_max_requests: Annotated[int, Field(ge=0, description="questions to the model; 0: no limit")] = 0
    judge_max_tokens: Annotated[
        int, Field(ge=0, description="tokens of prompts and replies together; 0: no limit")
    ] = 0
    judge_cache: Annotated[
        str, Field(description="where the model's replies are kept; empty: a file beside the runs")
    ] = ""
    human_checks: Annotated[
        Literal["apply", "ignore"],
        Field(description="verdicts that people overruled (human_checks.csv of the run)"),
    ] = "apply"


CollectArm = Annotated[Literal["collect"], Field(description="the instrumented arm that is analysed")]
DeltaPp = Annotated[
    float,
    Field(ge=0, le=100, description="accuracy in points the gate may cost when the threshold is chosen"),
]


class ThresholdParams(StageParams):
    """04_threshold: the threshold a stated rule picks on a validation run, for the gate of another run."""

    run: Run = "demo_validation"
    arm: CollectArm = "collect"
    score: Score = "min"
    delta_pp: DeltaPp = 0.0


class GateAnalysisParams(StageParams):
    """What the notebooks that analyse the gate of a finished run have in common."""

    arm: CollectArm = "collect"
    score: Score = "min"
    delta_pp: DeltaPp = 0.0
    threshold_from: ThresholdFrom = OPERATING_POINT
    seed: Seed = 0


class ConfidenceParams(GateAnalysisParams):
    """04_confidence_analysis: which score knows right drafts from wrong ones, and what no score can see."""

    modes: Annotated[
        list[str], _known("confidence mode", MODES), Field(description="confidence modes to compare")
    ] = list(MODES)
    bootstrap: Bootstrap = 2000


class CertifiedParams(GateAnalysisParams):
    """04_certified_thresholds: what the threshold in use gains and loses, and which thresholds hold on unseen data."""

    risk_target: Annotated[
        float, Field(gt=0, lt=1, description="certified: share of wrong ones among accepted drafts, at most")
    ] = 0.05
    loss_target: Annotated[
        float, Field(gt=0, lt=1, description="certified: share of samples accepted and wrong, at most")
    ] = 0.015
    pass_target: Annotated[
        float, Field(gt=0, lt=1, description="certified: share of wrong drafts that are accepted, at most")
    ] = 0.2
    delta: Annotated[
        float, Field(gt=0, lt=1, description="how often a bound that is certified with probability may fail")
    ] = 0.1
    repeats: Annotated[int, Field(ge=1, description="random halves that rules are tried on")] = 20


class CostsParams(GateAnalysisParams):
    """04_costs: when the gate pays, where the time goes, and how many replicas of which model answer most."""


class FiguresParams(StageParams):
    """05_paper_figures: summary, tables and figures of this run, of the reported numbers, or of both."""

    arms: Arms = list(DEFAULT_ARMS)
    source: Annotated[
        Literal["run", "reported", "both"],
        Field(description="numbers shown: of this run, as reported in the paper, or both"),
    ] = "both"
    more_runs: Annotated[
        list[str], Field(description="further finished runs for the table, another agent's for example")
    ] = []
    score: Score = "min"
    threshold_from: ThresholdFrom = OPERATING_POINT
    hard_below: Annotated[
        float,
        Field(gt=0, le=1, description="a sample is hard when its target is under this share of the side"),
    ] = 0.42
    bootstrap: Bootstrap = 2000
    seed: Seed = 0


class FidelityParams(StageParams):
    """study_replay_fidelity: the funnel really run at several settings, beside what replay says of them."""

    run: Run = "fidelity"
    data_root: DataRoot = "data/demo/benchmark"
    limit: Limit = 0
    settings: Annotated[
        list[str],
        Field(min_length=1, description="score and threshold, then K, router, batch, slope, agents at once"),
    ] = [
        "min > 0.9986",
        "min > 0.97",
        "mean > 0.99, K 96",
        "log > 0.95, router none",
        "bottom20 > 0.99, K 32, router none, batch 8",
        "min > 0.98, router small, batch 4",
        "min > 0.995, slope 0.5, batch 32, agents 16",
    ]
    draft_model: DraftModel = "data/demo/models/draft"
    agent_model: AgentModel = "data/demo/models/agent"
    prompts: Prompts = "demo"
    batch_size: BatchSize = 16
    agent_batch_size_batched: Annotated[int, Field(ge=2, description="agents at once in collect")] = 32
    k_store: KStore = 128
    dtype: Dtype = "float32"
    device: Device = "auto"


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


# ------------------------------------------------------------------ notebooks started by hand: no config speaks of them


class PositionBiasParams(StageParams):
    """study_position_bias: the run's drafts again, with the same options in other orders."""

    tasks: Tasks = list(OPTION_TASKS)
    orders: Annotated[
        list[str],
        _known("order", ("rotated_1", "rotated_2", "rotated_3", "shuffled")),
        Field(description="orders to draft in, beside as_published"),
    ] = ["rotated_1", "rotated_2", "rotated_3", "shuffled"]
    option_seed: OptionSeed = 0
    protocol: Protocol = "strict"
    bootstrap: Bootstrap = 2000
    seed: Seed = 0


class ReportedNumbersParams(NotebookParams):
    """study_reported_numbers: what the published numbers say when they are held against each other."""

    run: Run = "paper"


MEASUREMENTS: dict[str, type[NotebookParams]] = {
    "study_replay_fidelity": FidelityParams,
    "study_position_bias": PositionBiasParams,
    "study_reported_numbers": ReportedNumbersParams,
}


# ------------------------------------------------------------------ notebooks for people


class GatingExplorerParams(NotebookParams):
    """explore_gating: where to begin, and in whose name marks are kept."""

    score: Score = "min"
    k: K = 64
    slope: Slope = 0.6
    router: Annotated[
        Literal["large", "small", "none"],
        Field(description="whose word in Phase I counts; none: all drafted"),
    ] = "large"
    threshold: Threshold = None
    threshold_from: ThresholdFrom = OPERATING_POINT
    author: Annotated[str, Field(description="your name, kept with every mark; can be typed in later")] = ""
    review_n: Annotated[int, Field(ge=1, description="samples in the random queue for review")] = 50
    seed: Annotated[int, Field(ge=0, description="seed of the random queue")] = 0


class TraceExplorerParams(NotebookParams):
    """explore_traces: whose trajectories, and what to put beside them."""

    arm: Annotated[str, Field(min_length=1, description="arm whose trajectories are listed")] = "collect"
    text: Annotated[str, Field(description="words to look for, in any case; empty: none")] = ""
    other_run: Annotated[str, Field(description="run shown beside it; empty: none")] = "demo"
    other_arm: Annotated[str, Field(description="arm of the run beside it")] = "baseline"


EXPLORERS: dict[str, type[NotebookParams]] = {
    "explore_gating": GatingExplorerParams,
    "explore_traces": TraceExplorerParams,
}
ALL_NOTEBOOKS: dict[str, type[NotebookParams]] = NOTEBOOKS | MEASUREMENTS | EXPLORERS


def _check_k(k: int, k_store: int) -> None:
    if k > k_store:
        raise ValueError(f"k = {k} needs k_store of at least as many alternatives, but k_store = {k_store}")


def _check_pixels(low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise ValueError(f"min_pixels = {low} is more than max_pixels = {high}")


# ------------------------------------------------------------------ building, with errors for people

M = TypeVar("M", bound=BaseModel)


def build(model: type[M], values: Mapping[str, Any], source: str) -> M:
    """A checked model of `values` that came from `source` (a file or notebook, named in the error).

    Raises ConfigError that names every key at fault, what was expected there, and the nearest valid name.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        faults = "; ".join(_fault(item, model) for item in error.errors())
        raise ConfigError(f"{source}: {faults}") from None


def _fault(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        for part in item["loc"][:-1]:
            model = model.model_fields[part].annotation
        hint = nearest(item["loc"][-1], model.model_fields)
        return f"{where}: there is no such key{hint}; valid are {', '.join(model.model_fields)}"
    told = item["msg"].removeprefix("Value error, ")
    return f"{where}: {told}, got {item['input']!r}" if where else told
