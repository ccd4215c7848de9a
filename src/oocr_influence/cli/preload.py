"""What a worker imports once for all its jobs: the slow libraries, none of which touches a GPU."""

import datasets
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

import oocr_influence.cli.train_extractive

__all__ = [
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "datasets",
    "oocr_influence",
    "torch",
    "transformers",
]
