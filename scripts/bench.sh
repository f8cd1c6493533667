#!/usr/bin/env bash
# The whole comparison: Fantail, the floor and the peers under the same tests, in under 30 minutes on two CPUs.
#
# usage: scripts/bench.sh [OPTION...]
#
#   --quick         one round of each test: whether all of it works, no figures to quote
#   --no-install    with the peers as they are: nothing is installed
#   anything else   goes to `fantail-loadtest compare`, such as --rounds 3, --server nginx, --test echo
#
# Writes target/bench/results.json with all raw histograms, report.html, and ratios.svg for the README. Peers that are not
# installed are left out, which the report says. Nothing else should run on the machine meanwhile. Environment:
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
[ "$install" = no ] || scripts/peers.sh install

tool=target/release/fantail-loadtest
mkdir -p "$out"
status=0
"$tool" compare "$file" --skip-missing -o "$out/results.json" "${flags[@]}" || status=$?
# 3: some server has no run without a flaw, which the report says; anything else left nothing to report.
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || exit "$status"
"$tool" report "$out/results.json" -o "$out/report.html" --plot "$out/ratios.svg"
printf '\nbench.sh: %s\n' "$out/report.html"
exit "$status"
