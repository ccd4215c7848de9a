"""Hugging Face datasets as a source of text: by name, streamed at one commit, or a folder on disk.

    hf:allenai/dolma3_mix?split=train&config=common_crawl&revision=main
    hf:/data/saved_by_save_to_disk            hf:/data/folder_of_parquet_files

Of a dataset in many files, some are chosen by the seed: the first ones are often all of one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from oocr_influence.documents.text_files import PretrainingTextError, prompt_and_text

SETTINGS = ("split", "config", "revision")
Open = Callable[[], Iterator[tuple[str, str]]]


def open_dataset(
    source: str, field: str | None
) -> tuple[list[tuple[str, Open]], dict[str, Any], str | None]:
    """Named shards, what provenance says of them, and the licence that the dataset states.

    `source` is what follows `hf:`. Raises PretrainingTextError where it cannot be had.
    """
    # Imported here: it takes a second, and only this source needs it.
    import datasets

    name, settings = _settings(source)
    about: dict[str, Any] = {"split": settings.get("split", "train")}
    if "config" in settings:
        about["config"] = settings["config"]
    on_disk = Path(name).is_dir()
    try:
        if on_disk and "revision" in settings:
            raise ValueError("a folder has no revisions; leave it out")
        if on_disk and _was_saved(Path(name)):
            rows = datasets.load_from_disk(name)
            rows = rows[about["split"]] if isinstance(rows, datasets.DatasetDict) else rows
        else:
            if not on_disk:
                about |= _commit(name, settings.get("revision"))
            rows = datasets.load_dataset(
                name,
                settings.get("config"),
                split=about["split"],
                revision=about.get("commit"),
                streaming=True,
            )
    # Every kind of fault that a network, a hub and a format may have.
    except Exception as error:
        raise PretrainingTextError(f"hf:{source}: {type(error).__name__}: {error}") from None
    licence = getattr(getattr(rows, "info", None), "license", None) or about.pop("licence", None)
    # A dataset that is at hand has all its rows there, however many files it lies in.
    streamed = isinstance(rows, datasets.IterableDataset) and hasattr(rows, "shard")
    n = getattr(rows, "num_shards", 1) if streamed else 1
    return _shards(rows, n, f"hf:{source}", field), about, licence


def is_on_hub(source: str) -> bool:
    """Whether the dataset is of unknown size and comes over a network."""
    return not Path(_settings(source)[0]).is_dir()


def _settings(source: str) -> tuple[str, dict[str, str]]:
    name, _, query = source.partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := [key for key in settings if key not in SETTINGS]:
        raise PretrainingTextError(
            f"hf:{source}: no setting '{unknown[0]}'; there are {', '.join(SETTINGS)}"
        )
    return name, settings


def _was_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _commit(name: str, revision: str | None) -> dict[str, Any]:
    """The commit that `revision` means now: what is read, and what is written down."""
    from huggingface_hub import HfApi

    found = HfApi().dataset_info(name, revision=revision)
    card = getattr(found, "card_data", None)
    licence = card.get("license") if card is not None else None
    licence = ", ".join(licence) if isinstance(licence, list) else licence
    return {"revision": revision or "main", "commit": found.sha, "licence": licence}


def _shards(rows: Any, n: int, source: str, field: str | None) -> list[tuple[str, Open]]:
    if n <= 1:
        return [("all", lambda: _read(rows, source, field))]
    return [(f"{i} of {n}", _reader(rows, n, i, source, field)) for i in range(n)]


def _reader(rows: Any, n: int, index: int, source: str, field: str | None) -> Open:
    place = f"{source}, shard {index}"
    return lambda: _read(rows.shard(num_shards=n, index=index), place, field)


def _read(rows: Any, source: str, field: str | None) -> Iterator[tuple[str, str]]:
    number = -1
    try:
        for number, row in enumerate(rows):
            yield prompt_and_text(row, f"{source}, row {number}", field)
    except PretrainingTextError:
        raise
    except Exception as error:
        raise PretrainingTextError(
            f"{source}, after row {number}: {type(error).__name__}: {error}"
        ) from None
