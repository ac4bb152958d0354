#!/usr/bin/env bash
# The trading journal under the load of a dashboard, without Larder and behind two nodes of it; one command, see ../NOTES.md.
#   bench/journal/run.sh [--users N] [--seconds S] [--seed N] [--larder PATH] [--write]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
packages=$target/journal-python

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need node nodejs; need redis-server redis-server; need python3 python3
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  echo "installing ${missing[*]}" >&2
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! cmp -s bench/journal/requirements.txt "$packages/installed"; then
  rm -rf "$packages"
  python3 -m venv "$packages"
  "$packages/bin/python" -m pip install -q --disable-pip-version-check -r bench/journal/requirements.txt
  cp bench/journal/requirements.txt "$packages/installed"
fi
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
[[ " $* " == *" --larder"* ]] || cargo build --locked --profile optimized
exec node bench/journal/bench.mjs --larder "$target/optimized/larder" --python "$packages/bin/python" "$@"
