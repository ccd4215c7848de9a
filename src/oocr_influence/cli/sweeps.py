"""Which sweeps and jobs the words of a command mean; without what reads runs, which takes longer.

A sweep is named by its experiment's folder, by the folder of its jobs, or by what of the
experiment's name tells it from the others in the outputs folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.ledger import SPEC_FILE
from launcher.sweep import SWEEP_FILE
from oocr_influence.cli.arguments import UsageError
from oocr_influence.results.naming import is_stamped, unstamped

JOBS = "jobs"  # as in results/run_folder.py, which imports what reads tables


def find_sweeps(words: Sequence[Path], outputs: Path) -> list[Path]:
    """The folders of jobs that `words` name, each once; all of `outputs`, newest first, for none.

    Raises UsageError naming every word that means no sweep, or several.
    """
    if not words:
        return sweeps_in(outputs)
    faults: list[str] = []
    found: dict[Path, None] = {}
    for word in words:
        try:
            found.update(dict.fromkeys(_named(word, outputs)))
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError("\n       ".join(faults))
    return list(found)


def find_sweep(word: Path, outputs: Path) -> Path:
    """The only sweep that `word` names."""
    found = _named(word, outputs)
    if len(found) > 1:
        raise UsageError(f"{word} holds {len(found)} sweeps: name one of {_listed(found)}")
    return found[0]


def find_job(word: str, outputs: Path) -> Path:
    """The folder of the job that `word` names: a folder, SWEEP/JOB, or a job's id.

    Raises UsageError where there is none, or one in several sweeps.
    """
    folder = Path(word)
    if (folder / SPEC_FILE).is_file():
        return folder.absolute()
    sweep_word, _, job = word.rpartition("/")
    sweeps = _named(Path(sweep_word), outputs) if sweep_word else sweeps_in(outputs)
    found = [sweep / job for sweep in sweeps if (sweep / job / SPEC_FILE).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        sweep_names = [path.parent for path in found]
        raise UsageError(
            f"job {job} is in several sweeps: name it as SWEEP/{job}, with SWEEP "
            f"one of {_listed(sweep_names)}"
        )
    known = [path.name for sweep in sweeps[:1] for path in _jobs_of(sweep)][:10]
    hint = f"; the newest has {', '.join(known)}" if known else ""
    raise UsageError(f"no job {job} in {sweep_word or outputs}{hint}")


def sweeps_in(outputs: Path) -> list[Path]:
    """The folders of jobs of all experiments in a folder, newest first."""
    if not outputs.is_dir():
        return []
    names = sorted((path.name for path in outputs.iterdir() if is_stamped(path.name)), reverse=True)
    return [outputs / name / JOBS for name in names if is_sweep(outputs / name / JOBS)]


def is_sweep(folder: Path) -> bool:
    """Whether this is a folder of jobs."""
    if not folder.is_dir():
        return False
    return (folder / SWEEP_FILE).is_file() or any(True for _ in _jobs_of(folder))


def name_of(sweep: Path) -> str:
    """The sweep's name for people: its experiment's."""
    return sweep.parent.name if sweep.name == JOBS else sweep.name


def folder_of(sweep: Path) -> Path:
    """All that belongs to the sweep: its experiment's folder."""
    return sweep.parent if sweep.name == JOBS else sweep


def _named(word: Path, outputs: Path) -> list[Path]:
    if word.is_dir():
        for folder in (word / JOBS, word):
            if is_sweep(folder):
                return [folder.absolute()]
        if found := sweeps_in(word):
            return [path.absolute() for path in found]
        raise UsageError(f"{word} holds no sweep: no folder of jobs is there")
    everything = sweeps_in(outputs)
    asked = str(word).rstrip("/")
    whole = [path for path in everything if asked in (name_of(path), unstamped(name_of(path)))]
    for found in (whole, [path for path in everything if asked in name_of(path)]):
        if len(found) == 1:
            return [found[0].absolute()]
        if found:
            raise UsageError(f"{word} may be any of {_listed(found)}: name one")
    known = _listed(everything[:10]) or "none"
    raise UsageError(f"no sweep {word}: neither a folder nor one of those in {outputs} ({known})")


def _jobs_of(sweep: Path) -> list[Path]:
    return [path.parent for path in sorted(sweep.glob(f"*/{SPEC_FILE}"))]


def _listed(sweeps: Sequence[Path]) -> str:
    return ", ".join(name_of(path) for path in sweeps)
