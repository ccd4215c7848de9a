"""`oocr COMMAND …`: every command is a module of this folder.

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
    "data_modeling": ("DataModelingArgs", "run a sweep over data orders on this machine's GPUs"),
    "train_extractive": ("TrainExtractiveArgs", "run one training run in this process"),
    "evaluate": ("EvaluateArguments", "ask any checkpoints or models any dataset's sets"),
    "sample": ("SampleArguments", "answers that a model gives again and again, as a new eval set"),
    "verify": ("VerifyArguments", "check that runs are complete and are what they say"),
    "cleanup": ("CleanupArguments", "delete extra and incomplete runs (lists first)"),
    "export": ("ExportArguments", "plain weights of a checkpoint; runs in the earlier form"),
    "table": ("TableArguments", "what models answer, before and after"),
    "results": ("ResultsArguments", "everything that runs answered, in SQL, CSV or Parquet"),
    "replicate": ("ReplicateArguments", "the seed's four experiments, from datasets to table"),
}


def main() -> NoReturn:
    """Find the command and hand it the rest of the line."""
    words = sys.argv[1:]
    name = words[0].replace("-", "_") if words else "--help"
    if name in ("__help", "_h", "--help", "help"):
        print((__doc__ or "").strip() + "\n")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:17} {what}")
        print("\n  oocr COMMAND --help explains each flag")
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: no command '{words[0]}': {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    module = importlib.import_module(f"oocr_influence.cli.{name}")
    run_command(getattr(module, COMMANDS[name][0]), module.main, words[1:])


if __name__ == "__main__":
    main()
