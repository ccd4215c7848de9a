#!/bin/sh
# What the tests of pages take: Playwright by pip from requirements-browser.lock into .venv, and
# Debian's Chromium with the libraries that it names, unpacked below .venv/chromium and not
# installed, so that nothing of the machine is changed and nobody has to be root.
#
#     make browser
#
# Where one of them cannot be had this says so and ends well: the tests then skip, with the reason.
set -u
cd "$(dirname "$0")/.."
venv=$(pwd)/.venv

have_playwright=yes
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements-browser.lock || {
    echo "make browser: Playwright could not be installed; tests of pages will skip" >&2
    have_playwright=
}

# apt's own lists and cache stay as they are.
apt() {
    apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o Dir::State::lists="$scratch/lists" \
        -o Dir::Cache="$scratch" -o Dir::Cache::archives="$scratch/archives" "$@" >/dev/null
}

unpack_chromium() {
    scratch=$(mktemp -d "$venv/chromium.XXXXXX") || return
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial" "$scratch/files"
    apt update && apt install --no-install-recommends --download-only chromium fonts-dejavu-core || return
    for package in "$scratch"/archives/*.deb; do
        dpkg -x "$package" "$scratch/files" || return
    done
    [ -x "$scratch/files/usr/lib/chromium/chromium" ] || return
    mv "$scratch/files" "$venv/chromium"
}

if ! command -v chromium >/dev/null && [ ! -x "$venv/chromium/usr/lib/chromium/chromium" ] && ! unpack_chromium; then
    echo "make browser: Chromium could not be had from apt-get; tests of pages will skip" >&2
    exit 0
fi
# Only now, so that what is missing is tried again.
[ -z "$have_playwright" ] || touch "$venv/browser"
