#!/usr/bin/env bash
# The one test command: everything that holds Larder to its word. Made for Debian; installs what it does not find.
#   tests/run.sh [STEP…]      all steps, or those named: format lint unit fast-path models checker build instructions conformance httpbin json-server connections webhooks frameworks graphql events memory soak chaos fuzz metrics
# LARDER_CACHE_TESTS=FOLDER also runs a checkout of the http-cache-tests repository, which is newer than the npm release.
# LARDER_SKIP_FUZZ=1 leaves out the fuzzing (it needs a nightly toolchain); nothing is left out unasked.
# What `cargo test` names as ignored is what the checker step runs: it wants the machine for itself, and a build with planted bugs.
# Steps print little when they pass and the end of their log when they fail. The last line is the sum of all cases.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$PWD/target/test-tools
logs=$tools/logs
larder=$target/optimized/larder
mkdir -p "$logs"
rm -f "$logs/apt-updated"
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
export PATH="$tools/bin:$PATH" CARGO_TERM_COLOR=never
# The end of a log is what is printed: it has to hold what failed, not where the runtime was.
export RUST_BACKTRACE=0
if [ "${CI:-}" = true ]; then export CARGO_INCREMENTAL=0; fi

steps=(format lint unit fast-path models checker build instructions conformance httpbin json-server connections webhooks frameworks graphql events memory soak chaos fuzz metrics)
(($# == 0)) || steps=("$@")
declare -A titles=(
  [format]='Formatting (cargo fmt --check)'
  [lint]='Lints (cargo clippy, warnings are errors)'
  [unit]='Unit and integration tests (cargo test)'
  [fast-path]='The integration tests again, with every plain request on the fast path'
  [models]='The body tee and the table of flights in many orders of threads'
  [checker]='Purges against faults, 200,000 requests of random users, and the planted bugs that have to be found'
  [build]='The binary under test (profile optimized)'
  [instructions]='Instructions of hits, a 304, a pass and a miss, against the ledger (callgrind)'
  [conformance]='RFC 9111 conformance (http-cache-tests) with memory, with Redis, with both'
  [httpbin]='httpbin, directly and through Larder'
  [json-server]='json-server, directly and through Larder'
  [connections]='nginx and node over HTTP/2, uvicorn: no request is lost to how they close and limit connections'
  [webhooks]="Webhooks signed with the vendors' own libraries"
  [frameworks]='Express, Koa, Flask, Django, FastAPI, browsers, a scheduled warm-up and the examples behind a login'
  [graphql]='GraphQL Yoga, Apollo Server and Strawberry, asked by Apollo Client, urql and fetch'
  [events]='Browsers and EventSource follow purges through a restart of Redis'
  [memory]='Memory: 100,000 small responses, and a small budget under load'
  [chaos]='Chaos: 60 s of faults in nodes, Redis and origins under load'
  [soak]='Soak: 30 s of hostile clients beside normal ones'
  [fuzz]='Fuzzing, 10 s a target'
  [metrics]='Metrics (promtool check metrics)'
)

passed=0
failed=0
skipped=0
summary=()

finish() {
  printf '\n'
  printf '%s\n' "${summary[@]}"
  if ((skipped)); then
    printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
  else
    printf '%s passed, %s failed\n' "$passed" "$failed"
  fi
}

# Adds up the closing lines of a step's log: cargo test's and the plain "N passed, N failed" of the other suites.
count() {
  local log=$1 good bad
  read -r good bad < <(awk '
    /^test result: / { sub(/^test result: [A-Za-z]+\. /, "") }
    /^[0-9]+ passed[;,] [0-9]+ failed/ { good += $1; bad += $3 }
    END { print good + 0, bad + 0 }' "$log")
  if grep -q '^SKIPPED' "$log"; then
    skipped=$((skipped + 1))
    counted=skipped
    return 0
  fi
  if ((good + bad == 0)); then # a step that counts no cases is one itself
    if [ "$2" = 0 ]; then good=1; else bad=1; fi
  elif [ "$2" != 0 ] && ((bad == 0)); then
    bad=1
  fi
  passed=$((passed + good)) failed=$((failed + bad))
  counted="$good passed, $bad failed"
}

step() {
  local name=$1 log=$logs/$1.log begun=$SECONDS outcome=0
  [ -n "${titles[$name]:-}" ] || { echo "no step '$name'; there are: ${!titles[*]}" >&2; exit 2; }
  printf '== %s … ' "${titles[$name]}"
  # A subshell of its own, not a condition: there, `set -e` would not hold.
  set +e
  (set -e; "run_${name//-/_}") >"$log" 2>&1 </dev/null
  outcome=$?
  set -e
  count "$log" "$outcome"
  local seconds=$((SECONDS - begun))
  if ((outcome)); then
    printf 'FAILED after %s s (%s)\n' "$seconds" "$counted"
    tail -n 80 "$log"
    echo "(all of it: $log)"
    summary+=("FAILED  ${titles[$name]}: $counted, $seconds s")
    finish
    exit 1
  fi
  printf 'ok (%s, %s s)\n' "$counted" "$seconds"
  { grep -E '^(required|optimal) +[0-9]+/|^-- (memory|redis|both)$|^SKIPPED' "$log" || true; } | sed 's/^/   /'
  summary+=("ok      ${titles[$name]}: $counted, $seconds s")
}

# ── What the steps need ──

# Debian packages by the command that they bring: `need COMMAND=PACKAGE …` installs those whose command is missing.
need() {
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

install_packages() {
  local as_root=()
  echo "installing $*"
  command -v apt-get >/dev/null || { echo "no apt-get here: install $* by hand" >&2; return 1; }
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  [ -e "$logs/apt-updated" ] || "${as_root[@]}" apt-get update -q
  touch "$logs/apt-updated"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
}

# The npm packages of a folder, as its lock file pins them, installed outside the tree.
node_packages() {
  need node=nodejs
  need npm=npm
  local folder=$tools/$1
  mkdir -p "$folder"
  if ! cmp -s "tests/$1/package-lock.json" "$folder/installed"; then
    cp "tests/$1/package.json" "tests/$1/package-lock.json" "tests/$1/.npmrc" "$folder/"
    npm ci --prefix "$folder" --no-audit --no-fund --ignore-scripts
    cp "tests/$1/package-lock.json" "$folder/installed"
  fi
}

# The Python packages of a requirements file, in a virtual environment outside the tree: `python_packages NAME FILE`.
python_packages() {
  local python=python3 folder=$tools/$1
  if command -v python3.11 >/dev/null; then python=python3.11; fi
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    install_packages python3 python3-venv
    python=python3
  fi
  if ! cmp -s "$2" "$folder/installed"; then
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install -q --disable-pip-version-check -r "$2"
    cp "$2" "$folder/installed"
  fi
}

# ── The steps ──

run_format() { cargo fmt --check; cargo fmt --check --manifest-path bench/bare/Cargo.toml; }
run_lint() { cargo clippy --locked --all-targets -- -D warnings; }
run_unit() { need redis-server=redis-server; cargo test --locked; }
run_fast_path() { need redis-server=redis-server; LARDER_TEST_FAST_PATH=eager cargo test --locked --test it; }
run_models() { cargo test --locked --features models --lib models::; }
run_checker() {
  need redis-server=redis-server
  cargo test --locked --features planted-bugs --test it checker:: -- --nocapture
  cargo test --locked --features planted-bugs --test it sharing::property:: -- --nocapture
  cargo test --locked --features planted-bugs --test it request_content::property:: -- --nocapture
  cargo test --locked --features planted-bugs --test it sharing::identities:: -- --nocapture
}
# Not incremental: such builds inline less, by how much depends on what was built before, and their instructions are counted.
run_build() { CARGO_INCREMENTAL=0 cargo build --locked --profile optimized; }

run_instructions() {
  need valgrind=valgrind vgdb=valgrind node=nodejs redis-server=redis-server taskset=util-linux
  node bench/ledger.mjs --larder "$larder"
}

run_conformance() {
  need redis-server=redis-server
  node_packages conformance
  for store in memory redis both; do
    echo "-- $store"
    node tests/conformance/run.mjs --larder "$larder" --suite "$tools/conformance/node_modules/http-cache-tests" --store "$store"
    if [ -n "${LARDER_CACHE_TESTS:-}" ]; then
      node tests/conformance/run.mjs --larder "$larder" --suite "$LARDER_CACHE_TESTS" --store "$store"
    fi
  done
}

run_httpbin() {
  need node=nodejs
  python_packages httpbin tests/origins/requirements.txt
  node tests/origins/httpbin.mjs --larder "$larder" --python "$tools/httpbin/bin/python"
}

run_json_server() {
  node_packages origins
  node tests/origins/json-server.mjs --larder "$larder" --bin "$tools/origins/node_modules/json-server/lib/cli/bin.js"
}

run_connections() {
  need node=nodejs openssl=openssl nginx=nginx
  python_packages frameworks-python tests/frameworks/requirements.txt
  node tests/origins/connections.mjs --larder "$larder" --python "$tools/frameworks-python/bin/python"
}

run_webhooks() {
  node_packages webhooks
  node tests/webhooks/run.mjs --larder "$larder" --packages "$tools/webhooks"
}

run_frameworks() {
  need chromium=chromium openssl=openssl nginx=nginx
  node_packages frameworks
  python_packages frameworks-python tests/frameworks/requirements.txt
  node tests/frameworks/run.mjs --larder "$larder" --packages "$tools/frameworks" --python "$tools/frameworks-python/bin/python"
}

run_graphql() {
  node_packages graphql
  python_packages graphql-python tests/graphql/requirements.txt
  node tests/graphql/run.mjs --larder "$larder" --packages "$tools/graphql" --python "$tools/graphql-python/bin/python"
}

run_events() {
  need redis-server=redis-server chromium=chromium openssl=openssl
  node_packages events
  node tests/events/run.mjs --larder "$larder" --packages "$tools/events"
}

run_memory() {
  need node=nodejs
  node bench/memory.mjs --larder "$larder"
}

run_chaos() {
  need node=nodejs redis-server=redis-server redis-cli=redis-tools
  bench/chaos/run.sh 60 1 --larder "$larder"
}

run_soak() {
  need node=nodejs taskset=util-linux
  bench/soak.sh 30 --larder "$larder"
}

run_fuzz() {
  if [ "${LARDER_SKIP_FUZZ:-}" = 1 ]; then
    echo 'SKIPPED: LARDER_SKIP_FUZZ=1 left out the fuzzing'
    return 0
  fi
  local nightly name ran=0
  nightly=$(rustup toolchain list 2>/dev/null | grep -oE '^nightly[^ ]*' | head -n 1) || true
  if [ -z "$nightly" ]; then
    echo 'FUZZING NEEDS A NIGHTLY TOOLCHAIN, and there is none: rustup toolchain install nightly.'
    echo 'To go without, say so: LARDER_SKIP_FUZZ=1 tests/run.sh'
    return 1
  fi
  need c++=g++
  if ! command -v cargo-fuzz >/dev/null; then
    cargo install --locked --root "$tools" --target-dir "$tools/cargo-fuzz-build" cargo-fuzz
    rm -rf "$tools/cargo-fuzz-build"
  fi
  for target_file in fuzz/fuzz_targets/*.rs; do
    [ -e "$target_file" ] || { echo 'there are no fuzz targets in fuzz/fuzz_targets'; return 1; }
    name=$(basename "$target_file" .rs)
    echo "-- $name"
    # No sanitizer: the code under test has no unsafe part. What the fuzzer keeps goes outside the tree; what the tree holds to begin with is read only.
    mkdir -p "$tools/corpus/$name"
    local seeds=()
    [ ! -d "fuzz/corpus/$name" ] || seeds=("fuzz/corpus/$name")
    if ! cargo "+$nightly" fuzz run --sanitizer none --fuzz-dir fuzz --target-dir "$target/fuzz" "$name" \
      "$tools/corpus/$name" "${seeds[@]}" -- -max_total_time=10 -timeout=5 -rss_limit_mb=2048 2>&1 | tee "$logs/fuzz-$name.log"; then
      echo "FUZZING OF $name FAILED:"
      grep -aE 'panicked at|assertion|  left:|  right:|ERROR: libFuzzer|SUMMARY|^error|Base64' -A1 "$logs/fuzz-$name.log" | tail -n 20
      return 1
    fi
    ran=$((ran + 1))
  done
  echo "$ran passed, 0 failed"
}

run_metrics() {
  need node=nodejs promtool=prometheus
  node tests/metrics.mjs --larder "$larder"
}

for name in "${steps[@]}"; do step "$name"; done
finish
