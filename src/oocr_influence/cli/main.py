"""`oocr COMMAND …`: every command is a module of this folder, every second word a `main_…` in it.

Commands import what they need when they are called, so that `oocr --help` is immediate.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from oocr_influence.cli.arguments import USAGE_ERROR, run_command

# Command -> (its class of arguments, what it does).
COMMANDS = {
    "generate": ("GenerateArguments", "write a structured dataset of a world's facts"),
    "world": ("WorldArguments", "check, show or begin a world: entities, facts, questions"),
    "audit": ("AuditArguments", "say what a dataset's documents and questions really hold"),
    "dataset export": (
        "ExportDatasetArguments",
        "as JSON lines, Parquet or a Hugging Face dataset",
    ),
    "dataset import": ("ImportDatasetArguments", "one file again out of what was exported"),
    "dataset diff": ("DiffDatasetsArguments", "what is different between two datasets"),
    "dataset materialise": (
        "MaterialiseDatasetArguments",
        "a sweep's subset as a file that stands alone",
    ),
    "dataset filter": ("FilterDatasetArguments", "a dataset without some documents or facts"),
    "data_modeling": ("DataModelingArgs", "run a sweep over data orders on this machine's GPUs"),
    "plan": ("PlanArguments", "what a sweep will do and take; afterwards, what it did and took"),
    "train_extractive": ("TrainExtractiveArgs", "run one training run in this process"),
    "evaluate": ("EvaluateArguments", "ask any checkpoints or models any dataset's sets"),
    "sample": ("SampleArguments", "answers that a model gives again and again, as a new eval set"),
    "verify": ("VerifyArguments", "check that runs are complete and are what they say"),
    "cleanup": ("CleanupArguments", "delete extra and incomplete runs (lists first)"),
    "export": ("ExportArguments", "plain weights of a checkpoint; runs in the earlier form"),
    "table": ("TableArguments", "what models answer, before and after"),
    "status": ("StatusArguments", "how sweeps go: jobs, steps, losses, time, disk, GPUs"),
    "logs": ("LogsArguments", "what a run prints"),
    "stop": ("StopArguments", "stop sweeps, and make sure that nothing of them is left"),
    "resume": ("ResumeArguments", "go on with a sweep, as it was run before"),
    "retry": ("RetryArguments", "have failed runs tried again"),
    "gpus": ("GpusArguments", "who has this machine's GPUs, and who waits for one"),
    "worker": ("WorkerArguments", "join a sweep from any machine that sees its folder"),
    "attribute": ("AttributeArguments", "score a run's documents for each question, by methods"),
    "attribution score": ("ScoreArguments", "which methods find the documents, and predict runs"),
    "attribution removal": ("RemovalArguments", "what answers lose without documents on top"),
    "results": ("ResultsArguments", "everything that runs answered, in SQL, CSV or Parquet"),
    "report": ("ReportArguments", "what runs learned, as one page that opens in any browser"),
    "view": ("ViewArguments", "the same page, live in a browser while a sweep runs"),
    "datamodel fit": ("FitArguments", "how documents, facts or relations move answers"),
    "datamodel lds": ("LdsArguments", "how well that predicts runs on held-out subsets"),
    "datamodel plan": ("PlanArguments", "how many subsets and runs a precision needs"),
    "document": ("DocumentArguments", "write the replication record of what was run"),
    "rerun": ("RerunArguments", "run one run again from its record: does it come out the same?"),
    "diff": ("DiffArguments", "how two runs differ, in words"),
    "replicate": ("ReplicateArguments", "the seed's four experiments, from datasets to table"),
}


def main() -> NoReturn:
    """Find the command and hand it the rest of the line."""
    words = sys.argv[1:]
    name, rest = _command(words)
    if name in ("__help", "_h", "--help", "help"):
        print((__doc__ or "").strip() + "\n")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:17} {what}")
        print("\n  oocr COMMAND --help explains each flag")
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: no command '{' '.join(words[:1])}': {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    first, _, second = name.partition(" ")
    module = importlib.import_module(f"oocr_influence.cli.{first}")
    called = getattr(module, f"main_{second}" if second else "main")
    run_command(getattr(module, COMMANDS[name][0]), called, rest)


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and the rest of the line."""
    plain = [word.replace("-", "_") for word in words[:2]]
    if " ".join(plain) in COMMANDS:
        return " ".join(plain), words[len(plain) :]
    return (plain[0] if plain else "--help"), words[1:]


if __name__ == "__main__":
    main()
