"""What a worker imports once for all its jobs: the slow libraries, none of which touches a GPU.

A process that has asked CUDA for anything cannot fork others that use it.
"""

import datasets
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

# What loading any model imports, and the code of the models that most jobs load.
from transformers.models.olmo2 import modeling_olmo2

import oocr_influence.cli.train_extractive

__all__ = [
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "datasets",
    "modeling_olmo2",
    "oocr_influence",
    "torch",
    "transformers",
]
