#!/usr/bin/env bash
# Chaos: three nodes, two origins and a Redis Cluster under load, while a seed decides what breaks; one command, see ../NOTES.md.
#   bench/chaos/run.sh [SECONDS] [SEED] [--larder PATH] [--without-hostile]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need node nodejs; need redis-server redis-server; need redis-cli redis-tools
if ((${#missing[@]})); then
  echo "installing ${missing[*]}" >&2
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
fi
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
chosen=()
for name in seconds seed; do
  if [[ "${1:-}" =~ ^[0-9]+$ ]]; then chosen+=("--$name" "$1"); shift; fi
done
[[ " $* " == *" --larder"* ]] || cargo build --locked --profile optimized
exec node bench/chaos/chaos.mjs --larder "$target/optimized/larder" "${chosen[@]}" "$@"
