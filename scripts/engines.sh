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

"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements-engines.lock ||
    echo "make engines: Ray could not be installed; its tests will skip" >&2

command -v slurmctld >/dev/null 2>&1 && exit 0
[ -x "$venv/slurm/usr/sbin/slurmctld" ] && exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "make engines: no slurmctld and no apt-get here; the tests of Slurm will skip" >&2
    exit 0
fi
scratch=$(mktemp -d "$venv/slurm.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$scratch/files"
# apt's own lists and cache stay as they are.
apt() {
    apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists="$scratch/lists" \
        -o Dir::Cache="$scratch" -o Dir::Cache::archives="$scratch/archives" "$@" >/dev/null
}
if apt update && apt install --no-install-recommends --download-only slurm-wlm munge; then
    for package in "$scratch"/archives/*.deb; do dpkg -x "$package" "$scratch/files"; done
    # Slurm goes by its programs' names, which Debian sets when it installs them.
    for program in "$scratch"/files/usr/sbin/*-wlm; do
        ln -s "$(basename "$program")" "${program%-wlm}"
    done
    mv "$scratch/files" "$venv/slurm"
else
    echo "make engines: Slurm's packages could not be had; its tests will skip" >&2
fi
