"""What a worker imports before it forks."""

import subprocess
import sys

PROGRAM = """
import os
import sys
import traceback

import torch

def asked(*_, **__):
    traceback.print_stack()
    os._exit(1)  # an exception might be caught

for module, names in {
    torch.cuda: ("is_available", "device_count", "init", "_lazy_init", "get_device_properties"),
    torch._C: ("_cuda_getDeviceCount", "_cuda_init"),
}.items():
    for name in names:
        if hasattr(module, name) or module is torch.cuda:  # torch for CPUs alone lacks the latter
            setattr(module, name, asked)
import oocr_influence.cli.preload
print("transformers.models.olmo2.modeling_olmo2" in sys.modules)
print("transformers.generation.utils" in sys.modules)
"""


def test_imports_of_a_worker_do_not_ask_for_a_gpu():
    """CUDA that was begun before a fork is lost to the child: each job would fail."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
