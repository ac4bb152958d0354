#!/usr/bin/env bash
# What the fence check costs a hit from memory: this tree against a twin of it in which the check answers at once, or
# against another revision; NOTES.md says why so.
#   bench/fence.sh [--against REVISION] [--rounds N] [--limit PERCENT] [--only-count]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
against='' only_count='' count=() rates=()
while (($#)); do
  case $1 in
    --against) against=$2; shift 2 ;;
    --rounds) count+=("$1" "$2"); rates+=("$1" "$2"); shift 2 ;;
    --limit) count+=("$1" "$2"); shift 2 ;;
    --only-count) only_count=yes; shift ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
done

command -v perf >/dev/null || {
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends linux-perf >/dev/null
}

source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
if [ -n "$against" ]; then
  git archive "$against" | tar -x -C "$source"
else
  git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$source"
  perl -0pi -e '$cut = s/(fn judge\([^{]*->\s*([\w:]+)\s*\{)/$1\n        return $2::Alive;/; END { $? ||= !$cut }' \
    "$source/src/purge/fences.rs" || { echo 'Fences::judge is not where it was' >&2; exit 1; }
fi

cargo build --release --locked
cargo build --release --locked --manifest-path "$source/Cargo.toml" --target-dir "$target/bench-twin"
larder=$target/release/larder twin=$target/bench-twin/release/larder
verdict=0
node bench/count.mjs --larder "$larder" --twin "$twin" "${count[@]}" || verdict=$?
if [ -z "$only_count" ]; then
  cargo build --release --locked --manifest-path bench/bare/Cargo.toml --target-dir "$target/bench-bare"
  node bench/bench.mjs --larder "$larder" --twin "$twin" --bare "$target/bench-bare/release/bare" \
    --only hit-1k-64 --servers bare,larder,twin "${rates[@]}"
fi
exit "$verdict"
