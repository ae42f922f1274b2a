"""The jobs of a run in SLURM's queue: list them and cancel them. Jobs carry the run's name (see `prefix`)."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import StageError
from ..paths import repo_root

FIELDS = "%i|%T|%M|%R|%j|%k|%Z"  # id, state, time, node or reason, name, comment (the rule), folder
LEAVE_S = 120.0  # for cancelled jobs to leave the queue


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue. where: its node, or in parentheses the reason why it waits."""

    id: str
    state: str
    time: str
    where: str
    rule: str


def prefix(run: str) -> str:
    """How the names of a run's jobs begin, in the letters that the plugin of Snakemake allows."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", run)[:50]


def queued(run: str) -> list[QueuedJob]:
    """The jobs of a run of this checkout that wait or run; none on a machine without SLURM.

    Raises:
        StageError: the queue cannot be read.
    """
    if shutil.which("squeue") is None:
        return []
    listed = subprocess.run(
        ["squeue", "--me", "--noheader", f"--format={FIELDS}"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise StageError(
            f"squeue: {listed.stderr.strip() or f'exit code {listed.returncode}'}; try again later"
        )
    return jobs_in(listed.stdout, run, str(repo_root()))


def jobs_in(listed: str, run: str, folder: str) -> list[QueuedJob]:
    """The jobs of a run among lines of `squeue` with the FIELDS above. folder: where the run was started."""
    jobs = []
    for line in listed.splitlines():
        id, state, spent, where, name, comment, workdir = line.split("|", 6)
        if workdir == folder and name.rpartition("_")[0] == prefix(run):
            rule = re.sub(r"^rule_|_wildcards_.*$", "", comment)
            jobs.append(QueuedJob(id, state, spent, where, rule))
    return jobs


def cancel(jobs: Sequence[QueuedJob], run: str) -> None:
    """Cancel jobs of a run, and wait until they have left the queue.

    Raises:
        StageError: one is still there after `LEAVE_S`.
    """
    if not jobs:
        return
    ids = {job.id for job in jobs}
    subprocess.run(["scancel", *ids], check=False)
    until_s = time.monotonic() + LEAVE_S
    while left := sorted(ids & {job.id for job in queued(run)}):
        if time.monotonic() > until_s:
            raise StageError(
                f"SLURM jobs {', '.join(left)} of run {run} cannot be cancelled; see `squeue --me`"
            )
        time.sleep(1)
