#!/usr/bin/env bash
# What the fence check costs a hit from memory: this tree against a twin of it in which the check answers at once, or
# against another revision; NOTES.md says why so.
#   bench/fence.sh [--against REVISION] [--rounds N] [--limit PERCENT] [--release] [--rates]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
against='' profile=optimized with_rates='' count=() rates=()
while (($#)); do
  case $1 in
    --against) against=$2; shift 2 ;;
    --rounds) rates+=("$1" "$2"); shift 2 ;;
    --limit) count+=("$1" "$2"); shift 2 ;;
    --release) profile=release; shift ;;
    --rates) with_rates=yes profile=release; shift ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
done

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need valgrind valgrind; need node nodejs
[ -z "$with_rates" ] || need nginx nginx
if ((${#missing[@]})); then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
fi

# Always the same folder, and the same target for both builds, so that they share what is compiled: only Larder itself is built twice.
source=$target/bench-fence/source
rm -rf "$source"
mkdir -p "$source"
if [ -n "$against" ]; then
  git archive "$against" | tar -x -C "$source"
else
  git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$source"
  perl -0pi -e '$cut = s/(fn judge\([^{]*->\s*([\w:]+)\s*\{)/$1\n        return $2::Alive;/; END { $? ||= !$cut }' \
    "$source/src/purge/applied.rs" || { echo 'AppliedPurges::judge was not found' >&2; exit 1; }
fi

# Under another version: Cargo takes packages of one name and version in one target folder for the same, wherever they are.
perl -0pi -e 's/^version = "[^"]*"/version = "0.0.0-twin"/m' "$source/Cargo.toml"
perl -0pi -e 's/(name = "larder"\nversion = )"[^"]*"/$1"0.0.0-twin"/' "$source/Cargo.lock"

larder=$target/bench-fence/larder twin=$target/bench-fence/twin
# The twin first: what stands in the target folder in the end is Larder.
cargo build --profile "$profile" --locked --manifest-path "$source/Cargo.toml" --target-dir "$target"
cp "$target/$profile/larder" "$twin"
cargo build --profile "$profile" --locked --target-dir "$target"
cp "$target/$profile/larder" "$larder"
! cmp -s "$larder" "$twin" || { echo 'both builds are the same' >&2; exit 1; }

verdict=0
node bench/count.mjs --larder "$larder" --twin "$twin" "${count[@]}" || verdict=$?
if [ -n "$with_rates" ]; then
  cargo build --release --locked --manifest-path bench/bare/Cargo.toml --target-dir "$target/bench-bare"
  node bench/bench.mjs --larder "$larder" --twin "$twin" --bare "$target/bench-bare/release/bare" \
    --only hit-1k-64 --servers bare,larder,twin "${rates[@]}"
fi
exit "$verdict"
