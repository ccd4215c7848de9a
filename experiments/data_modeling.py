"""The seed's door to the sweep: see `src/oocr_influence/cli/data_modeling.py`."""

from oocr_influence.cli.arguments import run_command
from oocr_influence.cli.data_modeling import DataModelingArgs, main

if __name__ == "__main__":
    run_command(DataModelingArgs, main)
