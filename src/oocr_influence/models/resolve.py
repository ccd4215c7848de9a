"""Which weights: a name and a revision become one folder, before anything is loaded.

    resolved = resolve_model("allenai/OLMo-2-1124-7B", "stage1-step928646-tokens3896B")
    resolved.folder, resolved.commit

Configuration, tokenizer and weights are then all read from that folder, so that none of them can
come from another revision: a revision that reaches the configuration but not the weights is
impossible by construction.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from oocr_influence.models import lora, smollm2, tiny
from oocr_influence.results import adapters, checkpoints

DEFAULT_MODEL = "allenai/OLMo-2-1124-7B"
DEFAULT_REVISION = "stage1-step928646-tokens3896B"
WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
# Copies of the weights for other engines, which some repositories carry in subfolders.
UNWANTED_FILES = ["*/*"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model pinned to one place: a folder, or a package's file (`gguf`).

    `commit` is its hub commit, or its package and version as `name==version`, if it has one.
    `adapter` is the folder of a LoRA adapter that belongs to these weights.
    """

    name: str
    revision: str | None
    folder: Path | None
    commit: str | None
    gguf: Path | None = None
    adapter: Path | None = None


_BUILT_IN = ResolvedModel(tiny.NAME, None, tiny.FOLDER, None)


class ModelNotFoundError(FileNotFoundError):
    """The model or the revision cannot be had; the message says what is cached and the remedy."""


def default_revision(model: str) -> str | None:
    """The revision meant where none is stated: pinned for the default model alone."""
    return DEFAULT_REVISION if model == DEFAULT_MODEL else None


def is_on_disk(name: str) -> bool:
    """Whether `name` means something on this machine, built in, packaged or a folder: no hub."""
    return (
        name in (tiny.NAME, smollm2.NAME) or Path(name).is_dir() or name.startswith((".", "/", "~"))
    )


def resolve_model(
    name: str, revision: str | None = None, *, local_only: bool = False, weights: bool = True
) -> ResolvedModel:
    """Find `name` at `revision`: built in, out of a package, a local path, or the hub.

    `local_only` asks the cache alone. Without `weights` they are neither fetched nor missed:
    configuration and tokenizer are all that is there to be used. Raises ModelNotFoundError if
    either cannot be had, and for a revision of a model without revisions or of a local path that is
    not that path's own: a revision is never ignored.
    """
    if name in (tiny.NAME, smollm2.NAME):
        if revision is not None:
            kind = "built-in" if name == tiny.NAME else "packaged"
            raise ModelNotFoundError(
                f"--revision {revision!r}: the {kind} model {name} has no revisions; leave it out"
            )
        return _resolve_packaged() if name == smollm2.NAME else _BUILT_IN
    if Path(name).is_dir():
        return _resolve_folder(name, revision, weights)
    if name.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"--model {name!r}: no such folder")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ModelNotFoundError(
            f"--model {name!r} is neither a folder, nor a hub name such as {DEFAULT_MODEL!r}, nor "
            f"the built-in {tiny.NAME!r}, nor the packaged {smollm2.NAME!r}"
        )
    return _resolve_hub(name, revision, local_only, weights)


def _resolve_packaged() -> ResolvedModel:
    try:
        found = smollm2.find_weights()
    except FileNotFoundError as error:
        raise ModelNotFoundError(str(error)) from None
    return ResolvedModel(smollm2.NAME, None, None, found.package, gguf=found.file)


def _resolve_folder(name: str, revision: str | None, weights: bool) -> ResolvedModel:
    folder = Path(name).resolve()
    if adapters.is_adapter(folder):
        return _resolve_adapter(folder, name, revision)
    _require_files(folder, name, weights)
    commit = folder.name if folder.parent.name == "snapshots" else None
    if revision is not None and revision not in _own_revisions(folder):
        raise ModelNotFoundError(
            f"--revision {revision!r} is not a revision of the folder {name!r}, which holds one "
            f"model as it is{f' (commit {commit})' if commit else ''}; leave --revision out, or "
            "give the hub's name of the model instead of the folder"
        )
    return ResolvedModel(name, revision, folder, commit)


def _resolve_adapter(folder: Path, name: str, revision: str | None) -> ResolvedModel:
    """An adapter and its base at the commit that it was trained beside, out of the cache if there.

    It has no commit of its own: its folder is what it is.
    """
    faults = checkpoints.faults_of(folder)
    faults += [] if checkpoints.has_tokenizer(folder) else ["its tokenizer is missing"]
    faults += [missing] if (missing := lora.missing_package()) else []
    if revision is not None:
        faults.append("an adapter has no revisions: leave --revision out")
    if faults:
        raise ModelNotFoundError(f"{name}: {'; '.join(faults)}")
    base = adapters.read_base(folder)
    # The commit of a package is not asked for, but looked at.
    pinned = None if is_on_disk(base.model) else base.commit or base.revision
    try:
        try:
            resolved = resolve_model(base.model, pinned, local_only=True)
        except ModelNotFoundError:
            resolved = resolve_model(base.model, pinned)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"the base model of the adapter {name}: {error}") from None
    if resolved.commit != base.commit:
        raise ModelNotFoundError(
            f"{name} is an adapter of {base.model} at {base.commit}, which is {resolved.commit} now"
        )
    return replace(resolved, name=name, revision=None, commit=None, adapter=folder)


def _own_revisions(folder: Path) -> set[str]:
    """The commit of a hub cache's snapshot and the names that point to it."""
    if folder.parent.name != "snapshots":
        return set()
    refs = folder.parent.parent / "refs"
    names = {
        str(ref.relative_to(refs))
        for ref in refs.rglob("*")
        if ref.is_file() and ref.read_text(encoding="utf-8").strip() == folder.name
    }
    return {folder.name, *names}


def _resolve_hub(name: str, revision: str | None, local_only: bool, weights: bool) -> ResolvedModel:
    wanted = [pattern for pattern in WANTED_FILES if weights or pattern != "*.safetensors"]
    try:
        folder = _snapshot(name, revision, wanted, local_only)
        if weights and not list(folder.glob("*.safetensors*")):
            _snapshot(name, folder.name, ["*.bin"], local_only)
    except (OSError, ValueError) as error:  # every hub, network and cache error is one of these
        asked = f"revision {revision!r} of {name}" if revision else name
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelNotFoundError(
            f"{asked} cannot be had: {first_line}\n       {_describe_cache(name)}"
        ) from error
    _require_files(folder, name, weights)
    return ResolvedModel(name, revision, folder, folder.name)


def _snapshot(name: str, revision: str | None, patterns: list[str], local_only: bool) -> Path:
    """The folder of that revision, from the hub; where the hub cannot be had, from the cache."""
    from huggingface_hub import snapshot_download

    def download(local_files_only: bool) -> Path:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=UNWANTED_FILES,
            local_files_only=local_files_only,
        )
        return Path(folder)

    try:
        return download(local_only)
    except (OSError, ValueError) as error:
        # Some versions of the hub's client do this themselves, but not for a commit's hash.
        try:
            return download(True)
        except (OSError, ValueError):
            raise error from None


def _describe_cache(name: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    snapshots = sorted(path.name for path in (cached / "snapshots").glob("*"))
    if not snapshots:
        return f"none of its revisions is in the cache {HF_HUB_CACHE}"
    named: dict[str, list[str]] = {snapshot: [] for snapshot in snapshots}
    for ref in sorted((cached / "refs").rglob("*")):
        if ref.is_file():
            commit = ref.read_text(encoding="utf-8").strip()
            named.setdefault(commit, []).append(str(ref.relative_to(cached / "refs")))
    lines = [f"{commit} ({', '.join(refs)})" if refs else commit for commit, refs in named.items()]
    return "in the cache are: " + "; ".join(lines)


def _weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])


def _require_files(folder: Path, name: str, weights: bool) -> None:
    """Config, tokenizer and every shard of the weights must be there before a run starts."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json")):
        missing.append("tokenizer.json")
    # A repository may hold both formats, of which only the first is fetched and loaded.
    kind = "safetensors" if list(folder.glob("*.safetensors*")) else "bin"
    for index in folder.glob(f"*.{kind}.index.json") if weights else ():
        shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
        missing += [shard for shard in sorted(shards) if not (folder / shard).exists()]
    if weights and not _weight_files(folder):
        missing.append("*.safetensors")
    if missing:
        cached = " (the cached copy is incomplete)" if folder.parent.name == "snapshots" else ""
        raise ModelNotFoundError(f"--model {name!r}: {folder} lacks {', '.join(missing)}{cached}")
