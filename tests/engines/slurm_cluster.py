"""A real Slurm of two nodes with four fake GPUs each, on this machine, in one folder.

    with SlurmCluster(Path("/tmp/s")) as cluster:
        subprocess.run(["sinfo"], env=cluster.env)

Its programs are those of `make engines` (`.venv/slurm`) or of the machine. It takes root: a fake
GPU is a character device, and the nodes hold jobs in cgroups where they can.
"""

import contextlib
import os
import platform
import random
import re
import shutil
import socket
import string
import subprocess
import sys
import time
from pathlib import Path

import psutil
from engine_processes import eventually, kill_all_with, pids_with

CONF = """
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/sock,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
PluginDir={plugins}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType={proctrack}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobRequeue=1
KillWait=3
MinJobAge=300
MessageTimeout=5
SlurmdTimeout=3
SlurmctldTimeout=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName=DEFAULT CPUs=8 RealMemory=2000 Gres=gpu:4
NodeName={first},{second} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{n1_port},{n2_port}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=other Nodes=ALL MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """Why there can be no such cluster here."""


class SlurmCluster:
    """Two nodes, whose names no other such cluster has; `env` is what a client needs."""

    def __init__(self, root: Path):
        self.root = root
        # Slurm names cgroups by node, and two test runs at once must not share them.
        tag = "".join(random.choices(string.ascii_lowercase, k=6))
        self.nodes = (f"{tag}1", f"{tag}2")
        self.prefix = find_slurm()
        self.env = client_environment(self.prefix, root)
        self._processes: dict[str, subprocess.Popen] = {}
        # Daemons end with the test process, even one that is killed.
        self._with_us = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []

    def __enter__(self):
        try:
            self._configure()
            self._start_munged()
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            self.wait_until_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _configure(self):
        for folder in ("munge", "state", *(f"spool.{node}" for node in self.nodes), "dev"):
            (self.root / folder).mkdir(parents=True)
        for number in range(4):
            made = subprocess.run(["mknod", self.root / f"dev/gpu{number}", "c", "1", "3"])
            if made.returncode:
                raise Unavailable("character devices cannot be made here")
        ports = free_ports(3)
        values = {
            "root": self.root,
            "host": platform.node().split(".")[0],
            "ctld_port": ports[0],
            "n1_port": ports[1],
            "n2_port": ports[2],
            "first": self.nodes[0],
            "second": self.nodes[1],
            "plugins": self._find("slurm-wlm", "*/slurm-wlm/select_cons_tres.so").parent,
            "proctrack": "proctrack/cgroup" if has_cgroups() else "proctrack/linuxproc",
        }
        self.ends_whole_groups = has_cgroups()
        (self.root / "slurm.conf").write_text(CONF.format(**values), encoding="utf-8")
        (self.root / "gres.conf").write_text(
            f"Name=gpu File={self.root}/dev/gpu[0-3]\n", encoding="utf-8"
        )
        (self.root / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n", encoding="utf-8"
        )

    def _find(self, name, pattern):
        for folder in (self.prefix / "usr/lib", Path("/usr/lib"), Path("/usr/lib64")):
            if found := next(iter(folder.glob(pattern)), None):
                return found
        raise Unavailable(f"{name} has no {pattern}")

    def _program(self, *names):
        for name in names:
            if found := shutil.which(name, path=self.env["PATH"]):
                return found
        raise Unavailable(f"there is no {' or '.join(names)}")

    def _spawn(self, name, *command):
        with (self.root / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                [*self._with_us, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.env,
                start_new_session=True,
            )

    def _start_munged(self):
        folder = self.root / "munge"
        key = folder / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self._spawn(
            "munged",
            self._program("munged"),
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/sock",
            f"--pid-file={folder}/pid",
            f"--log-file={folder}/log",
            f"--seed-file={folder}/seed",
        )
        eventually((folder / "sock").exists, 10, "munged opens its socket")

    def start_controller(self):
        """Start slurmctld, again after `kill`, and wait until it answers."""
        self._spawn("slurmctld", self._program("slurmctld"), "-D")
        eventually(lambda: self._ask("scontrol", "ping").returncode == 0, 20, "slurmctld answers")

    def start_node(self, node):
        """Start the slurmd of a node, again after `kill`."""
        stepd = self._program("slurmstepd")
        self._spawn(node, self._program("slurmd"), "-D", "-N", node, "-d", stepd)

    def wait_until_up(self):
        """Wait until both nodes can take jobs.

        Before a node has registered it is called idle too, and the registration ends its jobs.
        """
        fit = re.compile(r"State=(IDLE|MIXED|ALLOCATED) .*SlurmdStartTime=\d")

        def up():
            return all(
                fit.search(self.run("scontrol", "-o", "show", "node", n)) for n in self.nodes
            )

        eventually(up, 30, "both nodes are up")

    def end_jobs(self, *which):
        """End those jobs."""
        self._ask("scancel", "--batch", "--state=RUNNING", "--signal=KILL", *which)
        self._ask("scancel", *which)

    def save_jobs(self, number):
        """Have slurmctld write down its jobs, by changing one; else it forgets them when killed."""
        path, since = self.root / "state/job_state", time.time()
        self.run("scontrol", "update", f"job={number}", "timelimit=1000")
        eventually(lambda: path.exists() and path.stat().st_mtime > since, 20, "jobs are saved")

    def kill(self, name):
        """Kill slurmctld or the slurmd of a node, with -9."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def lose(self, node):
        """As if the machine had failed: its slurmd and all that it runs end at once."""
        self.kill(node)
        jobs = pids_with(f"SLURM_CONF={self.root}/", f"SLURMD_NODENAME={node}")
        with contextlib.suppress(psutil.NoSuchProcess):
            for parent in [psutil.Process(pid).parent() for pid in jobs]:
                if parent is not None and parent.name() == "slurmstepd":
                    parent.kill()  # first, for it would report what becomes of the job
        kill_all_with(f"SLURM_CONF={self.root}/", f"SLURMD_NODENAME={node}")
        # What slurmctld finds out by itself within SlurmdTimeout.
        self.run("scontrol", "update", f"node={node}", "state=down", "reason=lost")

    def _ask(self, *command):
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)

    def run(self, *command):
        """Run a command of Slurm's; its output."""
        done = self._ask(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def close(self):
        """End every job, then every daemon."""
        if "slurmctld" in self._processes:
            with contextlib.suppress(Exception):
                self.end_jobs("--user=root")
                eventually(
                    lambda: not self._ask("squeue", "-h").stdout.strip(), 10, "no job is left"
                )
        for name in (*self.nodes, "slurmctld", "munged"):
            if process := self._processes.pop(name, None):
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        kill_all_with(f"SLURM_CONF={self.root}/")
        for node in self.nodes:
            for folder in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
                for inner in [*sorted(folder.rglob("*/"), reverse=True), folder]:
                    with contextlib.suppress(OSError):  # files in it are not ours to remove
                        inner.rmdir()


def find_slurm() -> Path:
    """The folder above `usr/` of Slurm's programs: of `make engines`, or the machine's own."""
    if os.geteuid() != 0:
        raise Unavailable("a fake GPU is a character device, which only root can make")
    unpacked = Path(os.environ.get("OOCR_TEST_SLURM") or Path(sys.prefix) / "slurm")
    if (unpacked / "usr/sbin/slurmctld").exists():
        return unpacked
    if shutil.which("slurmctld"):
        return Path("/")
    raise Unavailable("Slurm is not here; `make engines` gets it")


def client_environment(prefix: Path, root: Path) -> dict[str, str]:
    """The environment of Slurm's programs."""
    programs = [prefix / "usr/bin", prefix / "usr/sbin"]
    env = {
        **os.environ,
        "SLURM_CONF": str(root / "slurm.conf"),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
    }
    if prefix != Path("/"):
        libraries = prefix / "usr/lib" / f"{platform.machine()}-linux-gnu"
        env["LD_LIBRARY_PATH"] = f"{libraries}:{libraries}/slurm-wlm"
    return env


def has_cgroups() -> bool:
    """Whether Slurm can hold a job's processes in a cgroup of version 1."""
    return os.access("/sys/fs/cgroup/freezer", os.W_OK)


def free_ports(count):
    """So many ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
