"""A real SLURM of two nodes on the loopback of this machine, for as long as a test session.

Nothing of the system is touched: the daemons run as whoever runs the tests, with a key, sockets and a configuration of
their own in one folder. They come from the packages slurmctld, slurmd, slurm-client and munge.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["LocalSlurm", "why_no_slurm"]

_DAEMONS = ("munged", "slurmctld", "slurmd")
_PROGRAMS = ("munge", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
_NODES = ("n1", "n2")
_CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
MinJobAge=30
SchedulerParameters=sched_min_interval=100000,requeue_delay=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=2000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=2000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def why_no_slurm() -> str:
    """The reason why no SLURM can be started here; empty if one can."""
    missing = [name for name in _DAEMONS if not _daemon(name)] + [name for name in _PROGRAMS if not shutil.which(name)]
    return f"SLURM is not installed: no {', '.join(missing)}" if missing else ""


class LocalSlurm:
    """The cluster; `start` it and `stop` it.

    Args:
        folder: Empty, short (a socket's path has 107 characters at most), and writable by nobody else.

    Attributes:
        environment: Variables for the commands that use it. SLURM alone knows the nodes' names, so processes that look
            for the first of them are told its address.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "MASTER_ADDR": "127.0.0.1"}

    def start(self) -> None:
        """Start it, and wait until both nodes are idle.

        Raises:
            RuntimeError: If they are not, with what the daemons logged.
        """
        self.folder.chmod(0o755)  # munge wants its socket reachable for all; its key is not
        for name in ("state", *_NODES):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        controller, first, second = _free_ports(3)
        ports = {"controller": controller, "first": first, "second": second}
        config = _CONFIG.format(folder=self.folder, user=getpass.getuser(), **ports)
        (self.folder / "slurm.conf").write_text(config)
        if self._version() >= (23, 2):  # before, the word is not known; since then slurmd asks systemd for a place
            (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        self._run(
            "munged",
            *(f"--key-file={key}", f"--socket={self.folder}/munge.socket", f"--pid-file={self.folder}/munged.pid"),
            *(f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed"),
        )
        self._run("slurmctld", "-f", str(self.folder / "slurm.conf"))
        for node in _NODES:
            self._run("slurmd", "-N", node, "-f", str(self.folder / "slurm.conf"))
        deadline = time.monotonic() + 60
        while self.ask("sinfo", "--noheader", "--Node", "--format=%T").split() != ["idle", "idle"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"SLURM does not start:\n{self.logs()}")
            time.sleep(0.2)

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints; nothing if it fails."""
        done = subprocess.run(command, env=self._variables(), capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    def logs(self) -> str:
        """What the daemons logged."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{file.name}: {line}" for file in files for line in file.read_text().splitlines()[-20:])

    def stop(self) -> None:
        """End its jobs and its daemons."""
        if jobs := self.ask("squeue", "--noheader", "--format=%A").split():
            self.ask("scancel", "--signal=KILL", *jobs)
            self.ask("scancel", *jobs)
            deadline = time.monotonic() + 20
            while self.ask("squeue", "--noheader", "--format=%A").split() and time.monotonic() < deadline:
                time.sleep(0.2)
        for file in self.folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
        deadline = time.monotonic() + 20
        while any(self.folder.glob("*.pid")) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _version(self) -> tuple[int, ...]:
        found = re.search(r"(\d+)\.(\d+)", self._run("slurmd", "-V"))
        return tuple(int(part) for part in found.groups()) if found else (0, 0)

    def _run(self, name: str, *words: str) -> str:
        command = [_daemon(name), *words]
        done = subprocess.run(command, env=self._variables(), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name} does not start: {done.stdout}{done.stderr}\n{self.logs()}")
        return done.stdout

    def _variables(self) -> Mapping[str, str]:
        return {**os.environ, **self.environment}


def _daemon(name: str) -> str:
    """Where a daemon is; the path of most users does not have its folder."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin") or ""


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
