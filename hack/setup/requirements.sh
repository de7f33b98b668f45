#!/usr/bin/env bash
# Writes requirements.txt from requirements.in ("update"), for every Python that
# is supported, or fails if it is not what requirements.in asks for ("verify").
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

uv_version=0.13.9
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compile OPTION... keeps the versions that the file to write names already.
compile() {
  "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.10 \
    --generate-hashes --no-header --no-annotate --output-file "$work/requirements.txt" \
    "$@" requirements.in
  sed -i '1i # Written from requirements.in by "make update-requirements". Do not edit.' \
    "$work/requirements.txt"
}

python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check install --quiet "uv==$uv_version"
cp requirements.txt "$work/requirements.txt"
case ${1:-} in
update)
  compile --upgrade
  cp "$work/requirements.txt" requirements.txt
  ;;
verify)
  compile
  diff -u requirements.txt "$work/requirements.txt" ||
    { echo 'requirements.txt is out of date: run "make update-requirements"' >&2; exit 1; }
  ;;
*)
  echo "usage: $0 update|verify" >&2
  exit 2
  ;;
esac
