#!/usr/bin/env bash
# Everything that is tested, on a fresh Debian machine as on a developer's.
#
# usage: scripts/test.sh [STAGE...]
#
#   setup      what the other stages need: Debian packages (as root), an environment for Python
#   fmt        the sources are formatted
#   clippy     no warning in library, binary, tests, benches and documentation
#   unit       unit tests, examples in the documentation, benches compile
#   loom       mailbox and wake-up under every interleaving
#   blackbox   tests against the binary on epoll, over sockets on loopback
#   blackbox_uring  the same on io_uring
#   loadtest   the load test against faulty servers, the real one, its floors, Redis, NATS and Socket.IO
#   autobahn   the 301 WebSocket cases of Autobahn on epoll
#   autobahn_uring  the same on io_uring
#   memory     an idle subscriber costs at most 256 bytes
#   browser    the pages in a headless Chromium
#   full       all of these, which is also what no argument means
#
# Where io_uring can't be had, its stages and the unit stage say why and pass.
#
# The tests of crowds and faults at full size are a script of their own, scripts/robustness.sh, and so are millions of steps of the model
# that has some ten thousand here, scripts/model.sh.
#
# Stages run in the given order and end at the first failure. Environment: FANTAIL_IO chooses the driver of every server that the
# stages without a driver of their own test; FANTAIL_TEST_THREADS (half as many again as CPUs) how many black-box tests run at a time.
set -euo pipefail
cd "$(dirname "$0")/.."

all_stages=(setup fmt clippy unit loom blackbox blackbox_uring loadtest autobahn autobahn_uring memory browser)
stage=none
times=()

stage_setup() {
  # The command decides, not the package: a machine may have it from elsewhere.
  local need missing=()
  for need in cc:gcc make:make chromium:chromium promtool:prometheus faketime:faketime python3:python3 node:nodejs npm:npm \
    redis-server:redis-server nats-server:nats-server; do
    PATH=$PATH:/usr/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
  done
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "install as root: apt-get install ${missing[*]}" >&2
    return 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

stage_fmt() {
  cargo fmt --all --check
}

stage_clippy() {
  cargo clippy --locked --workspace --all-targets -- -D warnings
  # What links to nothing in the documentation is found as well.
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace --document-private-items
}

stage_unit() {
  cargo build --locked --bin fantail
  # The tests of the driver on io_uring pass where there is none, unless it is asked for.
  ! has_uring || FANTAIL_IO=uring cargo test --locked --lib io::
  cargo test --locked --lib --bins --benches
  cargo test --locked --doc
}

stage_loom() {
  # The flag goes to this crate alone, so what it depends on is not built once more.
  local built
  built=$(cargo rustc --locked --lib --profile test --message-format=json-render-diagnostics -- --cfg loom |
    grep -o '"executable":"[^"]*"')
  built=${built#*:\"}
  "${built%\"}" mailbox
}

stage_blackbox() {
  blackbox epoll
}

stage_blackbox_uring() {
  cargo build --locked --bin fantail
  has_uring || return 0
  blackbox uring
}

blackbox() {
  # Most of their time these tests wait for deadlines, so some more than CPUs may run together.
  local threads=${FANTAIL_TEST_THREADS:-$(($(nproc) * 3 / 2))}
  FANTAIL_IO=$1 FANTAIL_TEST_TOOLS=all cargo test --locked --test '*' -- --test-threads "$threads"
}

stage_loadtest() {
  cargo build --locked --workspace --bins
  [ loadtest/peers/node/node_modules/.package-lock.json -nt loadtest/peers/node/package-lock.json ] ||
    npm ci --prefix loadtest/peers/node --no-audit --no-fund
  FANTAIL_TEST_TOOLS=all cargo test --locked -p fantail-loadtest
}

# Whether the debug build can have io_uring here; if not, says why.
has_uring() {
  local said
  # A server that starts is ended by timeout; one that can't have io_uring ends by itself and says so.
  said=$(timeout 2 target/debug/fantail serve --io uring --listen 127.0.0.1:0 --admin off 2>&1) || true
  case $said in
    *"--io uring can't be had"*) echo "skipped: ${said%%$'\n'*}"; return 1 ;;
  esac
}

stage_autobahn() {
  cargo build --locked --release
  FANTAIL_IO=epoll scripts/autobahn.sh
}

stage_autobahn_uring() {
  cargo build --locked --bin fantail
  has_uring || return 0
  cargo build --locked --release
  FANTAIL_IO=uring scripts/autobahn.sh target/autobahn-uring
}

stage_memory() {
  cargo build --locked --release
  # The bench measures what is beside it; it need not be optimised itself.
  FANTAIL_BIN=$PWD/target/release/fantail cargo test --locked --bench memory -- --bench
}

stage_browser() {
  cargo build --locked --release
  local binary=$PWD/target/release/fantail
  (cd tests/browser && npm install --no-audit --no-fund && FANTAIL_BIN=$binary timeout 600 node --test)
}

report() {
  local status=$?
  printf '\n'
  [ ${#times[@]} -eq 0 ] || printf '  %s\n' "${times[@]}"
  if [ "$status" -eq 0 ]; then
    echo "test.sh: all stages passed"
  else
    echo "test.sh: FAILED in stage $stage" >&2
  fi
}

run_stage() {
  stage=$1
  local start=$SECONDS
  printf '\n==> %s\n' "$stage"
  "stage_$stage"
  times+=("$(printf '%-14s %4d s' "$stage" $((SECONDS - start)))")
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
}

stages=("$@")
[ $# -gt 0 ] || stages=(full)
for name in "${stages[@]}"; do
  case " ${all_stages[*]} full " in
    *" $name "*) ;;
    *) usage >&2; exit 2 ;;
  esac
done

trap report EXIT
for name in "${stages[@]}"; do
  if [ "$name" = full ]; then
    for each in "${all_stages[@]}"; do run_stage "$each"; done
  else
    run_stage "$name"
  fi
done
