#!/usr/bin/env bash
# The whole comparison: Fantail, the floor and the peers under the same tests, in under 30 minutes on two CPUs once all is built:
# less than 28 for the rounds, which a test asserts, and 2 for latency against subscribers and for scaling.
#
# usage: scripts/bench.sh [OPTION...]
#
#   --quick         one round of each test: whether all of it works, no figures to quote
#   --no-install    with the peers as they are: nothing is installed
#   anything else   goes to `fantail-loadtest compare`, such as --rounds 3, --server nginx, --test echo
#
# Writes target/bench/results.json with all raw histograms, the same of paced fan-outs to 100, 1,000 and 5,000 subscribers
# and of Fantail with one and two workers, report.html of all that, and ratios.svg for the README. Peers that are not installed
# or don't start are left out, which the report says. Nothing else should run on the machine meanwhile. Environment:
# FANTAIL_BENCH_FILE (loadtest/peers/compare.toml) says what is compared, FANTAIL_BENCH_OUT (target/bench) where results go.
set -euo pipefail
cd "$(dirname "$0")/.."

file=${FANTAIL_BENCH_FILE:-loadtest/peers/compare.toml}
out=${FANTAIL_BENCH_OUT:-target/bench}
install=yes
flags=()

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
}

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) flags+=(--rounds 1) ;;
    --no-install) install=no ;;
    *) flags+=("$1") ;;
  esac
  shift
done

if [ ! -f "$file" ]; then
  echo "bench.sh: there is no $file" >&2
  exit 2
fi

cargo build --locked --release --workspace --bins
[ "$install" = no ] || scripts/peers.sh install ||
  echo "bench.sh: going on with the servers that are ready" >&2

tool=target/release/fantail-loadtest
mkdir -p "$out"
status=0
"$tool" compare "$file" --skip-missing -o "$out/results.json" "${flags[@]}" || status=$?
# 3: some server has no run without a flaw, which the report says; anything else left nothing to report.
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"

# The comparison's server of that name.
fantail=(target/release/fantail serve --admin 127.0.0.1:0 --io epoll --log-level warn)
server_cpus=$(sed -n 's/^server_cpus *= *"\(.*\)"/\1/p' "$file")
client_cpu=$(sed -n 's/^client_cpu *= *//p' "$file")
server=
trap '[ -z "$server" ] || kill "$server"' EXIT
singles=()

# subscribers NAME COMMAND...: paced fan-outs of a server, so that latency is seen against the number of subscribers. One that
# can't be made is told and missing, no more; after Ctrl-C there is no other.
subscribers() {
  local name=$1 said=$out/$1.log address= size
  shift
  taskset -c "$server_cpus" "$@" --listen 127.0.0.1:0 >"$said" 2>&1 &
  server=$!
  # The first address that it says it listens on; the kernel chose the port.
  for _ in {1..100}; do
    address=$(grep -m 1 listening "$said" | grep -o '127\.0\.0\.1:[0-9]*') && break
    sleep 0.1
  done
  if [ -z "$address" ]; then
    echo "bench.sh: $name does not start: $(tail -n 1 "$said")" >&2
    ! kill "$server" 2>/dev/null || wait "$server" || true
    server=
    return 0
  fi
  for size in 100 1000 5000; do
    "$tool" fanout "ws://$address/topics/{topic}" --connections "$size" --rate 20 --size 128 --duration 5s --warmup 1s \
      --pid "$server" --cpu "$client_cpu" --json "$out/$name-$size.json" >/dev/null || [ $? -ne 130 ] || exit 130
    [ ! -s "$out/$name-$size.json" ] || singles+=("$out/$name-$size.json")
  done
  kill "$server"
  wait "$server" || true
  server=
}

rm -f "$out"/{floor,fantail}-*.json
subscribers floor "$tool" floor
subscribers fantail "${fantail[@]}" --workers 1
"$tool" scaling "ws://127.0.0.1:{port}/topics/{topic}" --workers 1,2 --duration 3s --json "$out/fantail-2.json" \
  -- "${fantail[@]}" --listen "127.0.0.1:{port}" --workers "{workers}" >/dev/null || [ $? -ne 130 ] || exit 130
[ ! -s "$out/fantail-2.json" ] || singles+=("$out/fantail-2.json")

"$tool" report "$out/results.json" "${singles[@]}" -o "$out/report.html"
# Of runs that all lost something there is no picture to show.
"$tool" report "$out/results.json" --plot "$out/ratios.svg" || true
printf '\nbench.sh: %s\n' "$out/report.html"
exit "$status"
