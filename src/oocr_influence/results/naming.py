"""How folders are named: `<UTC stamp>_<5 alphanumerics>_<name>`, safe names, readable numbers."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from datetime import UTC, datetime
from pathlib import Path

MAX_EXPERIMENT_NAME_BYTES = 160
MAX_FILE_NAME_BYTES = 255
_MAX_ESCAPED_BYTES = 180
_STAMPED = re.compile(r"\d{4}_\d\d_\d\d_\d\d-\d\d-\d\d_[0-9A-Za-z]{4,8}_.", re.DOTALL)
# Separators, the escape sign itself and control characters.
_UNSAFE = re.compile(r"[/\\%\x00-\x1f\x7f]")


def check_experiment_name(name: str) -> str:
    """The name itself; raises ValueError if it cannot be a part of folder names."""
    size = len(name.encode())
    if not name.strip():
        raise ValueError("experiment_name is empty: give it a name")
    if size > MAX_EXPERIMENT_NAME_BYTES:
        raise ValueError(
            f"experiment_name of {size} bytes: at most {MAX_EXPERIMENT_NAME_BYTES} fit the names "
            f"of run folders ({name[:40]!r}…)"
        )
    unsafe = sorted({repr(character) for character in _UNSAFE.findall(name) if character != "%"})
    if unsafe or name in (".", ".."):
        raise ValueError(
            f"experiment_name {name!r} would leave its folder or break its name: write it without "
            f"{', '.join(unsafe) or 'dots alone'}"
        )
    return name


def escaped(name: str) -> str:
    """`name` as the name of one folder: different names stay different, none leaves its place."""
    safe = _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", name)
    if safe[:1] in (".", ""):
        safe = f"%2E{safe[1:]}" if safe else "%"
    if len(safe.encode()) > _MAX_ESCAPED_BYTES:
        kept = safe.encode()[: _MAX_ESCAPED_BYTES - 17].decode(errors="ignore")
        safe = f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return safe


def readable_number(value: float) -> str:
    """1.0 is 1, 1e-4 is 0.0001, 1e-05 stays: the shortest spelling that reads back the same."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def is_stamped(name: str) -> bool:
    """Whether a folder's name begins with a stamp and an id, as ours and the earlier system's."""
    return _STAMPED.match(name) is not None


def unstamped(name: str) -> str:
    """What the person called it: the name without its time and letters."""
    return name.split("_", 5)[5] if is_stamped(name) else name


def by_time(path: Path) -> tuple[str, str, str]:
    """The order of stamped folders: by time, within a second by name.

    Sorted by their whole names, those of one second would lie as their random letters do.
    """
    name = path.name
    stamp = name[: len("2026_01_20_23-26-34")] if is_stamped(name) else name
    return stamp, unstamped(name), name


def create_stamped(parent: Path, name: str) -> Path:
    """Make `<parent>/<stamp>_<id>_<name>`, a folder that nobody else has made."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        stamp = datetime.now(UTC).strftime("%Y_%m_%d_%H-%M-%S")
        letters = string.ascii_letters + string.digits
        short_id = "".join(secrets.choice(letters) for _ in range(5))
        path = parent / f"{stamp}_{short_id}_{name}"
        try:
            path.mkdir()
        except FileExistsError:
            continue  # the same second and the same five letters: draw again
        return path


def run_name(experiment_name: str, kind: str, epochs: float, rate: float, dataset: str) -> str:
    """`<experiment>_all_docs_num_epochs_<E>_lr_<LR>_dataset_<file>`, without stamp and id.

    Where it would be longer than a file system allows, the experiment's part is cut.
    """
    tail = (
        f"_{kind}_num_epochs_{readable_number(epochs)}_lr_{readable_number(rate)}"
        f"_dataset_{escaped(dataset)}"
    )
    room = MAX_FILE_NAME_BYTES - len("2026_01_20_23-26-34_2Q653_") - len(tail.encode())
    return experiment_name.encode()[:room].decode(errors="ignore") + tail
