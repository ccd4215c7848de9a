"""How workers ask Slurm for a place: a small TOML file, checked before anything is submitted.

partition = "gpu"
time = "08:00:00"
gres = "gpu:a100:{gpus}"
extra = ["--mail-type=FAIL"]
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from launcher.engine import EngineError

# Minutes, or hours:minutes:seconds and their parts, with days before a dash: sbatch(1), --time.
_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|UNLIMITED|INFINITE", re.IGNORECASE)
# What the engine says itself, and finds its workers by.
_OURS = (
    "job-name",
    "comment",
    "output",
    "error",
    "signal",
    "requeue",
    "no-requeue",
    "array",
    "wrap",
)
_OURS_SHORT = ("-J", "-o", "-e", "-a")


@dataclass(frozen=True)
class SlurmSettings:
    """What `sbatch` is told of every worker; what is None is left to the site's defaults."""

    partition: str | None = None
    """Partition, or several with commas between."""
    time: str | None = None
    """Time limit of a worker, as sbatch's --time takes it ("90" is minutes, "1-00:00:00" a day)."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    nodelist: str | None = None
    """The node that must be used."""
    exclude: str | None = None
    """Nodes to keep away from."""
    gres: str = "gpu:{gpus}"
    """Generic resources of a worker that needs GPUs; `{gpus}` is their number."""
    constraint: str | None = None
    """Features that the node must have."""
    cpus_per_task: int | None = None
    """Processors of a worker."""
    mem: str | None = None
    """Memory of a worker ("64G")."""
    signal_seconds: int = 120
    """Seconds before the time limit at which a worker is sent SIGUSR1, saves and exits 75."""
    max_in_flight: int = 100
    """Workers of one sweep that may be queued or running at once."""
    extra: tuple[str, ...] = ()
    """More flags for sbatch, each as on its command line, the last to be said."""

    def __post_init__(self) -> None:
        faults = [*_type_faults(self), *self._value_faults()]
        if faults:
            raise EngineError("Slurm's settings: " + "; ".join(faults))
        object.__setattr__(self, "extra", tuple(self.extra))

    def _value_faults(self) -> list[str]:
        faults = []
        if isinstance(self.time, str) and not _TIME.fullmatch(self.time):
            faults.append(
                f'time {self.time!r} is not of a form like "90", "08:00:00", "1-12:00:00"'
            )
        if isinstance(self.gres, str) and "{gpus}" not in self.gres:
            faults.append(
                f'gres {self.gres!r} lacks {{gpus}} in the place of the number ("gpu:{{gpus}}")'
            )
        for name, least in (("cpus_per_task", 1), ("signal_seconds", 1), ("max_in_flight", 1)):
            value = getattr(self, name)
            if isinstance(value, int) and value < least:
                faults.append(f"{name} must be at least {least}, not {value}")
        for flag in self.extra if isinstance(self.extra, (list, tuple)) else ():
            if not isinstance(flag, str):
                continue  # its type is a fault already
            name = flag.partition("=")[0].removeprefix("--")
            if not flag.startswith("-"):
                faults.append(f'extra {flag!r} is no flag: write "--name=value" as one text')
            elif (flag.startswith("--") and name in _OURS) or flag.startswith(_OURS_SHORT):
                faults.append(f"extra {flag!r}: the launcher sets that itself")
        return faults

    @classmethod
    def from_toml(cls, path: Path | str) -> SlurmSettings:
        """Read a settings file; EngineError with the file, the key and the known keys."""
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise EngineError(f"{path}: {error.strerror}: the file of Slurm's settings") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise EngineError(f"{path} is not TOML: {error}") from None
        known = [field.name for field in fields(cls)]
        if unknown := [_with_guess(key, known) for key in content if key not in known]:
            raise EngineError(
                f"{path}: unknown: {', '.join(unknown)}; known keys: {', '.join(known)}"
            )
        try:
            return cls(**content)
        except EngineError as error:
            raise EngineError(f"{path}: {error}") from None

    def flags(self, gpus: int) -> list[str]:
        """The flags of sbatch for a worker of so many GPUs."""
        said: dict[str, str | int | None] = {
            "partition": self.partition,
            "time": self.time,
            "account": self.account,
            "qos": self.qos,
            "nodelist": self.nodelist,
            "exclude": self.exclude,
            "constraint": self.constraint,
            "cpus-per-task": self.cpus_per_task,
            "mem": self.mem,
            "gres": self.gres.replace("{gpus}", str(gpus)) if gpus else None,
        }
        return [f"--{name}={value}" for name, value in said.items() if value is not None] + [
            *("--nodes=1", "--ntasks=1", "--requeue", "--open-mode=append"),
            # B: to the batch script alone, which has become the worker.
            f"--signal=B:USR1@{self.signal_seconds}",
            *self.extra,
        ]


def _type_faults(settings: SlurmSettings) -> list[str]:
    faults = []
    for field in fields(settings):
        value: Any = getattr(settings, field.name)
        kind = str(field.type)
        if value is None and "None" in kind:
            continue
        if kind.startswith("tuple"):
            right = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
            wanted = "a list of texts"
        elif kind.startswith("int"):
            right, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        else:
            right, wanted = isinstance(value, str) and value.strip() != "", "a text in quotes"
        if not right:
            faults.append(f"{field.name} must be {wanted}, not {value!r}")
    return faults


def _with_guess(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    return f"{key!r} (did you mean {close[0]!r}?)" if close else repr(key)
