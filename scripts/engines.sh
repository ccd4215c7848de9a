#!/bin/sh
# What the tests of the Slurm and Ray engines take, into .venv alone: Ray by pip from
# requirements-engines.lock, and the files of Debian's Slurm below .venv/slurm, unpacked and not
# installed, so that no daemon of the machine is touched and nobody has to be root.
#
#     make engines
#
# Where one of them cannot be had this says so and ends well: its tests then skip, with the reason.
set -u
cd "$(dirname "$0")/.."
venv=$(pwd)/.venv

have_ray=yes
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements-engines.lock || {
    echo "make engines: Ray could not be installed; its tests will skip" >&2
    have_ray=
}

# apt's own lists and cache stay as they are.
apt() {
    apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists="$scratch/lists" \
        -o Dir::Cache="$scratch" -o Dir::Cache::archives="$scratch/archives" "$@" >/dev/null
}

unpack_slurm() {
    scratch=$(mktemp -d "$venv/slurm.XXXXXX") || return
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$scratch/files"
    apt update && apt install --no-install-recommends --download-only slurm-wlm munge || return
    for package in "$scratch"/archives/*.deb; do
        dpkg -x "$package" "$scratch/files" || return
    done
    # Slurm goes by its programs' names, which Debian sets when it installs them.
    for program in "$scratch"/files/usr/sbin/*-wlm; do
        ln -s "$(basename "$program")" "${program%-wlm}"
    done
    mv "$scratch/files" "$venv/slurm"
}

if ! command -v slurmctld >/dev/null && [ ! -x "$venv/slurm/usr/sbin/slurmctld" ] && ! unpack_slurm; then
    echo "make engines: Slurm could not be had from apt-get; its tests will skip" >&2
    exit 0
fi
# Only now, so that what is missing is tried again.
[ -z "$have_ray" ] || touch "$venv/engines"
