"""A SLURM cluster of one node on this machine, for the tests and for trying a sweep by hand.

    apt-get install --no-install-recommends slurm-wlm munge
    python -m tests.slurm_cluster FOLDER      starts it, prints what to export; Ctrl-C or `kill` ends it

Its daemons listen on the loopback alone, keep everything in FOLDER and run as the user who starts them. It keeps no
accounts, so `sacct` does not answer. Jobs of the partition `urgent` push those of `main` (which are queued anew) and of
`cancelled` (which are not) out.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SECONDS = 30  # until it must be there
# No cgroups: a container has none to give. One job a core; what is killed is given a second.
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=cancelled Nodes=ALL PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL PriorityTier=10
"""


def missing() -> list[str]:
    """Daemons that are not installed."""
    return [name for name in DAEMONS if _program(name) is None]


def _program(name: str) -> str | None:
    # They lie where the path of a common user does not lead.
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster with two cores, until the end of the block.

    Args:
        folder: for its files; below a short path, since that of a socket has 108 characters at most.

    Yields:
        The environment that leads SLURM's commands to it.
    """
    folder = folder.absolute()
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    values = {
        "folder": folder,
        "host": socket.gethostname().partition(".")[0],
        "user": getpass.getuser(),
        "controller": _free_port(),
        "node": _free_port(),
        "cores": 2,
    }
    (folder / "slurm.conf").write_text(CONFIG.format(**values))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    places = ("key-file=munge.key", "socket=munge.socket", "pid-file=munged.pid")
    places += ("log-file=munged.log", "seed-file=munged.seed")
    commands = [
        [
            "munged",
            "--foreground",
            "--force",
            *(f"--{p.replace('=', f'={folder}/')}" for p in places),
        ],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    with ExitStack() as stack:
        for name, *words in commands:
            log = stack.enter_context((folder / f"{name}.out").open("w"))
            program = _program(name)
            assert program is not None, f"{name} is not installed"
            daemon = subprocess.Popen(
                [program, *words], env={**os.environ, **environment}, stdout=log, stderr=log
            )
            stack.callback(_end, daemon)
        _wait_until_idle(environment, folder)
        yield environment


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    command = ["sinfo", "--noheader", "--partition=main", "--format=%T"]
    while time.monotonic() < deadline:
        found = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True
        )
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.2)
    logs = "\n".join(file.read_text()[-2000:] for file in sorted(folder.glob("*.out")))
    raise RuntimeError(f"SLURM did not start within {SECONDS} s:\n{found.stderr}\n{logs}")


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main(folder: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    with running(Path(folder)) as environment:
        for name, value in environment.items():
            print(f"export {name}={value}", flush=True)
        try:
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            subprocess.run(["scancel", "--me"], env={**os.environ, **environment}, check=False)
            time.sleep(3)  # for jobs to end before what would end them does


if __name__ == "__main__":
    main(*sys.argv[1:])
