"""How two runs differ, in words: what was asked for, data, code, machine, and what came out.

    oocr diff RUN_A RUN_B
    oocr diff RUN_A RUN_B --json

Exit status 0 where nothing differs, 1 where anything does, 2 where the two cannot be compared.
Names and places of runs, and flags that change no result (--eval_cache), are not compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import Field, field_validator

from oocr_influence.cli.arguments import CommandArguments, UsageError, run_command
from oocr_influence.datasets.differences import compare_datasets, describe
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results.differing import PARTS, Difference, Differences, record_of
from oocr_influence.results.finding import dataset_file, find_runs
from oocr_influence.results.run_differences import differences
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.run_outcomes import Outcomes, compare_outcomes


class DiffArguments(CommandArguments):
    """Two runs."""

    runs: list[Path] = Field(json_schema_extra={"positional": True})
    """the folders of two runs, A and B; an experiment that has one run stands for it"""
    json_: bool = False
    """print everything as JSON, whole diffs of the code included"""
    diff_lines: int = Field(default=60, ge=0)
    """lines of a diff that are shown in the text (lines)"""

    @field_validator("runs")
    @classmethod
    def _two(cls, value: list[Path]) -> list[Path]:
        if len(value) != 2:
            raise ValueError(f"name two runs, A and B, not {len(value)}")
        return value


def main(args: DiffArguments) -> int:
    """Print the differences; returns 0 if there are none, 1 otherwise."""
    a, b = (one_run(path) for path in args.runs)
    try:
        found = differences(record_of(a), record_of(b))
        outcomes = compare_outcomes(a, b)
    except ValueError as error:
        raise UsageError(str(error)) from error
    found.found = [_with_dataset(one, a, b) for one in found.found]
    same = not found.found and not outcomes.different
    if args.json_:
        about = {"a": str(a.path), "b": str(b.path), "same": same}
        differing = [asdict(one) for one in found.found]
        whole = {**about, "differences": differing, "unknown": found.unknown}
        whole["results"] = asdict(outcomes)
        print(json.dumps(whole, indent=1, ensure_ascii=False, default=str))
    else:
        print("\n".join(describe_differences(a, b, found, outcomes, args.diff_lines)))
    return 0 if same else 1


def one_run(path: Path) -> RunFolder:
    """The run at `path`; raises UsageError where there is not exactly one."""
    try:
        runs = find_runs(path)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    if len(runs) != 1:
        raise UsageError(f"{path} holds {len(runs) or 'no'} runs: name the folder of one")
    return runs[0]


def describe_differences(
    a: RunFolder, b: RunFolder, found: Differences, outcomes: Outcomes, diff_lines: int
) -> list[str]:
    """The text: a block a part that differs, then what is the same, then results."""
    lines = [f"A  {a.path}", f"B  {b.path}", ""]
    for part in PARTS:
        if not (own := found.of(part)):
            continue
        lines.append(part)
        for difference in own:
            lines.append(f"  {difference.words}")
            lines += [f"    {line}" for line in _first(difference.detail, diff_lines)]
    alike = [part for part in PARTS if part != "results" and not found.of(part)]
    if alike:
        known = "as far as both say" if found.unknown else "in both"
        lines.append(f"the same, {known}: {', '.join(alike)}")
    lines += [f"unknown: {what}" for what in found.unknown]
    return [*lines, "", "results", *(f"  {line}" for line in outcomes.told)]


def _first(text: str, n: int) -> list[str]:
    lines = text.splitlines()
    more = [f"… and {len(lines) - n} more lines: --diff_lines, or --json"]
    return lines if len(lines) <= n else [*lines[:n], *more]


def _with_dataset(difference: Difference, a: RunFolder, b: RunFolder) -> Difference:
    """Of two datasets, what is different in them, where both files are still there."""
    if difference.what != "dataset_digest":
        return difference
    files = [dataset_file(run) for run in (a, b)]
    try:
        datasets = [load_structured_dataset(file) for file in files if file is not None]
    except (OSError, ValueError):
        return difference
    if len(datasets) != 2:
        return difference
    return replace(difference, detail=describe(compare_datasets(*datasets)))


if __name__ == "__main__":
    run_command(DiffArguments, main)
