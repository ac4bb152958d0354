#!/usr/bin/env bash
# Normal clients beside hostile ones: what hostile clients cost the others; one command, see NOTES.md.
#   bench/soak.sh [SECONDS] [--only ATTACK,…] [--larder PATH] [--write]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

command -v node >/dev/null || { echo 'node is missing: apt-get install nodejs' >&2; exit 1; }
(($(nproc) >= 2)) || { echo 'this needs two cores: one for Larder, one for all clients' >&2; exit 1; }
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
seconds=600
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
[[ " $* " == *" --larder"* ]] || cargo build --locked --profile optimized
exec node bench/soak.mjs --larder "$target/optimized/larder" --seconds "$seconds" "$@"
