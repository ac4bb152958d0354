#!/usr/bin/env bash
# Measures Larder against nginx, HAProxy, Varnish, nginx with Lua and Redis, a bare hyper server and a tokio loop; one command, see NOTES.md.
#   bench/run.sh [--only WORKLOAD,…] [--servers NAME,…] [--rounds N] [--seconds S] [--minutes M] [--quick] [--write] [--json FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need nginx nginx; need haproxy haproxy; need varnishd varnish; need wrk wrk; need node nodejs; need taskset util-linux
need redis-server redis-server; need redis-cli redis-tools; need h2load nghttp2-client; need openssl openssl
needs_file() { [ -e "$1" ] || missing+=("$2"); }
needs_file /usr/lib/nginx/modules/ngx_http_lua_module.so libnginx-mod-http-lua
needs_file /usr/share/lua/5.1/nginx/redis.lua lua-nginx-redis
if ((${#missing[@]})); then
  echo "installing ${missing[*]}" >&2
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
fi
(($(nproc) >= 2)) || { echo 'the bench needs two cores: one for the server, one for the load' >&2; exit 1; }
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
(($(ulimit -n) >= 8192)) || { echo "the limit on open files ($(ulimit -n)) is too low: raise it to 8192" >&2; exit 1; }

# With `--servers` given, Larder is only built if it is among them.
if [[ "$* " != *--servers* || "$* " =~ --servers[\ =][^\ ]*(larder|workers|routes|stored) ]]; then cargo build --release --locked; fi
cargo build --release --locked --manifest-path bench/bare/Cargo.toml --target-dir "$target/bench-bare"
exec node bench/bench.mjs --larder "$target/release/larder" --bare "$target/bench-bare/release/bare" "$@"
