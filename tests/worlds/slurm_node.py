"""A real SLURM of one node on this machine: munge, slurmctld and slurmd, without accounting. Needs root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CONF = Path("/etc/slurm/slurm.conf")  # the plugin's inner step drops SLURM_CONF
PROGRAMS = ("slurmctld", "slurmd", "munged", "squeue", "scancel")
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CommunicationParameters=block_null_hash
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MpiDefault=none
SwitchType=switch/none
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no SLURM can be started here, "" if one can."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "the plugin is not installed: make slurm-check"
    if CONF.exists() or CONF.is_symlink():
        return f"{CONF} exists: this machine has a SLURM of its own"
    return ""


@contextlib.contextmanager
def node(base: Path) -> Iterator[None]:
    """Start the node; end it by the ids of its processes."""
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (base / name).mkdir()
    (base / "slurm.conf").write_text(SETTINGS.format(host=host, base=base))
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.symlink_to(base / "slurm.conf")
    munge = _munge(base)
    try:
        subprocess.run(["slurmctld"], check=True)
        _wait_for(lambda: "UP" in _output("scontrol", "ping"))
        subprocess.run(["slurmd", "-N", host], check=True)
        _wait_for(lambda: _output("sinfo", "--noheader", "--format=%t").strip() == "idle")
        yield
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False)
        for name in ("slurmd", "slurmctld"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((base / f"{name}.pid").read_text()), signal.SIGTERM)
        if munge:
            os.kill(munge, signal.SIGTERM)
        CONF.unlink()


def _munge(base: Path) -> int | None:
    """Start munged, unless one runs; returns its process id."""
    if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
        return None
    shutil.chown(_made(Path("/run/munge"), 0o755), "munge", "munge")
    key = Path("/etc/munge/munge.key")
    if not key.exists():
        key.touch(0o400)
        key.write_bytes(os.urandom(1024))
        shutil.chown(key, "munge", "munge")
    command = ["setpriv", "--reuid", "munge", "--regid", "munge", "--init-groups", "/usr/sbin/munged"]
    subprocess.run([*command, f"--pid-file=/run/munge/{base.name}.pid"], check=True)
    _wait_for(lambda: subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0)
    return int(Path(f"/run/munge/{base.name}.pid").read_text())


def _made(folder: Path, mode: int) -> Path:
    folder.mkdir(mode=mode, exist_ok=True)
    return folder


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _wait_for(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 120
    while not done():
        if time.monotonic() > until_s:
            raise TimeoutError("SLURM does not start")
        time.sleep(0.2)
