"""Can the clock of a run be trusted? The A/A line: a part of the agent alone, timed twice, and the load of the machine.

Two timings of the same code differ by what the machine did meanwhile. The ratio q of their seconds has an interval from
the bootstrap over rounds, in which the samples were timed together. Its half-width h, on the logarithmic scale, holds
for the samples of the whole run; a part of them has chance on its side less often. So a speedup over n of N samples can
be off by the factor exp(d), with

    d^2 = log(q)^2 + h^2 N / n

and its interval is widened by d, in quadrature on the logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import StageError
from ..paths import stage_dir
from ..runs.arms import CLOCK_STAGE
from ..runs.files import MANIFEST
from ..runs.reading import StageData, read_stage
from ..runs.recorded_run import RecordedRun
from ..runs.records import AgentRecord
from ..stats.intervals import Estimate
from ..stats.paired import speedup
from ..stats.resampling import DEFAULT_BOOTSTRAP

DRIFT_LIMIT = 0.05  # two timings of one code may differ by so much, as a fraction
BUSY_LIMIT = 0.9  # of the cores, by all processes together
OTHERS_LIMIT = 0.1  # of the cores, by other processes


def drift(recorded: RecordedRun) -> dict[str, float] | None:
    """The A/A line of a run; None where it has none.

    Returns:
        ratio (first over second timing of the same samples), low and high, n (samples timed twice), total (samples of
        the agent alone), seconds that were timed twice.
    """
    first_s: list[float] = []
    again_s: list[float] = []
    rounds: list[str] = []
    total = 0
    for task in recorded.finished("02_baseline"):
        again, baseline = _again(recorded, task), recorded.stage("02_baseline", task)
        # a baseline that was repeated otherwise since then is not the same code
        if again is None or again.manifest.inputs.get("code") != baseline.manifest.inputs.get("code"):
            continue
        alone = baseline.records
        block, total = again.manifest.config["block"], total + len(alone)
        for place, (id_, record) in enumerate(alone.items()):
            if id_ in again.records and record.status == again.records[id_].status == "ok":
                first_s.append(record.wall_s)
                again_s.append(again.records[id_].wall_s)
                rounds.append(f"{task} {place // block}")
    if len(set(rounds)) < 2:
        return None
    ratio = speedup(first_s, again_s, rounds, DEFAULT_BOOTSTRAP)
    ends = {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
    return ends | {"n": ratio.n, "total": total, "timed_s": float(np.sum(first_s))}


def _again(recorded: RecordedRun, task: str) -> StageData[AgentRecord] | None:
    """The second timings of a task; None where there are none, or a run that is not strict cannot read them."""
    if not (stage_dir(recorded.name, CLOCK_STAGE, task) / MANIFEST).is_file():
        return None
    try:
        return read_stage(recorded.name, CLOCK_STAGE, task, AgentRecord)
    except StageError:
        if recorded.strict:
            raise
        return None


def reach(aa: Mapping[str, float], n: int) -> float:
    """By how much a speedup over n samples can be off: d of the formula above, about a fraction."""
    log = {name: math.log(aa[name]) for name in ("ratio", "low", "high")}
    half = max(log["high"] - log["ratio"], log["ratio"] - log["low"])
    return math.sqrt(log["ratio"] ** 2 + half**2 * aa["total"] / max(n, 1))


def with_drift(estimate: Estimate, aa: Mapping[str, float] | None) -> Estimate:
    """The speedup with an interval that contains the drift of the clock; unchanged without an A/A line."""
    if not aa or not estimate.low > 0:
        return estimate
    d = reach(aa, estimate.n)
    down, up = math.log(estimate.value / estimate.low), math.log(estimate.high / estimate.value)
    low, high = estimate.value * math.exp(-math.hypot(down, d)), estimate.value * math.exp(math.hypot(up, d))
    method = f"{estimate.method}, with the drift of the clock"
    return Estimate(estimate.value, low, high, estimate.n, estimate.unit, method)


def clock_check(recorded: RecordedRun, arms: Iterable[str] = ()) -> dict[str, Any]:
    """What is known of a run's clock, ready for JSON.

    Args:
        recorded: the run.
        arms: whose load is reported; empty: all.

    Returns:
        aa: see `drift`, with drift_pct, by how much a speedup over all samples can be off in percent; None without
        an A/A line. load: arm -> own_cores and others_cores, the mean number of cores that this process and all others
        used while the arm had its turns; arms without such a record are absent. cores: of the machine.
        distrust: reasons, in words, why the clock cannot be trusted; empty where none is known.
    """
    aa, load, cores, distrust = drift(recorded), {}, 0, []
    for arm in arms or recorded.arms:
        manifests = [recorded.manifest(f"02_{arm}", task) for task in recorded.finished(f"02_{arm}")]
        metered = [m.timing for m in manifests if m.timing.get("session_s") and "others_cpu_s" in m.timing]
        if not metered:
            continue
        session_s = sum(timing["session_s"] for timing in metered)
        own, others = (
            max(0.0, sum(timing[name] for timing in metered) / session_s)
            for name in ("cpu_s", "others_cpu_s")
        )
        cores = manifests[0].environment.get("cores", 1)
        load[arm] = {"own_cores": own, "others_cores": others}
        if own + others > BUSY_LIMIT * cores and others > OTHERS_LIMIT * cores:
            distrust.append(f"other processes used {others:.1f} of {cores} cores while {arm} ran")
    if aa:
        aa = aa | {"drift_pct": 100.0 * math.expm1(reach(aa, aa["total"]))}
        if aa["drift_pct"] > 100.0 * DRIFT_LIMIT:
            off = f"{aa['drift_pct']:.0f} %"
            distrust.insert(0, f"two timings of the same code leave room for a drift of {off}")
    return {"aa": aa, "load": load, "cores": cores, "distrust": distrust}
