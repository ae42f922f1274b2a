"""Numbers as text: intervals, p-values, chance, durations and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..runs.recorded_run import RecordedRun
    from ..stats.intervals import Estimate

PACKAGES_SHOWN = ("torch", "transformers", "numpy", "pandas")
SIGNIFICANT = 0.05  # p-values below it are called more than chance


def interval(
    estimate: Estimate | Sequence[float | None], digits: int = 1, unit: str = "", sign: str = ""
) -> str:
    """A value with its interval: "96.2 [94.2, 97.5]", or without the bracket where there is none.

    Args:
        estimate: an `Estimate`, or value, low and high; None and nan are missing.
        digits: digits after the decimal point.
        unit: follows the value, such as " %" or "x".
        sign: "+" shows the sign of positive numbers as well.

    Returns:
        The text; empty where the value is missing.
    """
    ends = estimate if isinstance(estimate, Sequence) else (estimate.value, estimate.low, estimate.high)
    value, low, high = (math.nan if number is None else number for number in ends)
    if math.isnan(value):
        return ""
    form = f"{sign}.{digits}f"
    bracket = "" if math.isnan(low) or math.isnan(high) else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{unit}{bracket}"


def apart(first: float, second: float, digits: int = 4, most: int = 12) -> tuple[str, str]:
    """Two numbers with as many digits as it takes to see that they differ: never "0.9986 against 0.9986".

    Args:
        first: a number.
        second: the number that it is compared with.
        digits: digits after the decimal point where they suffice.
        most: digits at most; numbers that agree in all of them look alike.
    """
    texts = f"{first:.{digits}f}", f"{second:.{digits}f}"
    if texts[0] != texts[1] or first == second or digits >= most:
        return texts
    return apart(first, second, digits + 1, most)


def p_value(value: float | None) -> str:
    """A p-value with three digits, never "0.000"; empty where it is missing."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def chance(evidence: float | Sequence[float], n: int) -> str:
    """Whether a difference is more than chance explains: "more than chance (n=519)" or "may be chance (n=519)".

    Args:
        evidence: the p-value of the difference, or the two ends of its interval.
        n: samples that the difference was measured on.
    """
    if isinstance(evidence, Sequence):
        low, high = evidence
        beyond = low > 0 or high < 0
    else:
        beyond = evidence < SIGNIFICANT
    return f"{'more than chance' if beyond else 'may be chance'} (n={n})"


def duration(seconds: float) -> str:
    """Seconds as people read them: 0.4 s, 41 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: int) -> str:
    """Bytes as people read them: 812 B, 40 kB, 1.2 MB."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    return f"{n_bytes / 1000:.0f} kB" if n_bytes < 1_000_000 else f"{n_bytes / 1_000_000:.1f} MB"


def commit_of(environment: Mapping[str, Any]) -> str:
    """The commit that a result was made with: "commit 20e17c5166", and whether there were other changes."""
    commit = f"commit {(environment.get('commit') or 'unknown')[:10]}"
    return f"{commit} with uncommitted changes" if environment.get("dirty") else commit


def hardware_of(environment: Mapping[str, Any]) -> str:
    """The machine that a result was made on: GPU, processor and cores, as far as they are known."""
    cores = f"{environment['cores']} cores" if environment.get("cores") else ""
    return ", ".join(filter(None, [environment.get("gpu"), environment.get("cpu"), cores]))


def packages_of(environment: Mapping[str, Any]) -> str:
    """Python and the packages that results depend on most, with their versions."""
    packages = environment.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in PACKAGES_SHOWN if name in packages]
    return ", ".join([f"Python {environment.get('python', 'unknown')}", *versions])


def made_with(environment: Mapping[str, Any]) -> str:
    """Code, packages and machine in one line."""
    return " · ".join([commit_of(environment), packages_of(environment), hardware_of(environment)])


def clock_line(check: Mapping[str, Any] | RecordedRun | None) -> str:
    """What is known of a run's clock, for the line under a speedup.

    A warning stands first where the clock cannot be trusted. A run from before there was an A/A line has no warning.

    Args:
        check: a run, or what `analysis.clock.clock_check` says of it.
    """
    if check is not None and not isinstance(check, Mapping):
        from ..analysis.clock import clock_check

        check = clock_check(check)
    check = check or {}
    aa, load = check.get("aa"), check.get("load", {})
    if aa:
        off = interval([100.0 * (aa[name] - 1.0) for name in ("ratio", "low", "high")], 1, " %", "+")
        line = (
            f"clock: two timings of the agent alone on the same {aa['n']} samples differ by {off}; "
            "intervals of speedups contain this drift"
        )
    else:
        line = "clock: no A/A line recorded, so intervals of speedups do not contain its drift"
    if load:
        others = [cores["others_cores"] for cores in load.values()]
        line += (
            f"; other processes used {min(others):.1f} to {max(others):.1f} of {check['cores']} cores, by arm"
        )
    warning = (
        f"WARNING, do not trust these times: {'; '.join(reasons)}. "
        if (reasons := check.get("distrust"))
        else ""
    )
    return f"{warning}{line[0].upper()}{line[1:]}."
