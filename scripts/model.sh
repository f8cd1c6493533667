#!/usr/bin/env bash
# The model of the promise, by seed, for as long as one likes: readers on every transport, of one name or several that overlap, cuts, stalls,
# deletions, times to live, policies and stops on scripted drivers, held against a plain oracle (src/worker/tests/model). The test command
# makes 300 stories, some seventy-five thousand steps.
#
# usage: scripts/model.sh [STORIES [FIRST]]
#
#   STORIES   how many stories, 20,000 if it is not said: some five million steps
#   FIRST     the seed of the first one, 0 if it is not said
#
# Built for speed but with its assertions; the seeds are spread over the CPUs. A failure names its seed, and
# `FANTAIL_SEEDS=N..N+1 cargo test --lib model` plays it again.
set -euo pipefail
cd "$(dirname "$0")/.."

stories=${1:-20000}
first=${2:-0}
case $stories$first in
  *[!0-9]*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

# Dependencies are optimised anyway; what is tested keeps its assertions and its checks of arithmetic.
built=$(CARGO_PROFILE_TEST_OPT_LEVEL=2 cargo test --locked --lib --no-run --target-dir target/model --message-format=json-render-diagnostics |
  grep -o '"executable":"[^"]*"' | tail -n 1)
built=${built#*:\"}
built=${built%\"}

# Shares of some size, so that whoever ends first takes another; each is a process, and a panic tells which seed it was.
share=250
ranges=()
for ((from = first; from < first + stories; from += share)); do
  to=$((from + share < first + stories ? from + share : first + stories))
  ranges+=("$from..$to")
done
status=0
printf '%s\n' "${ranges[@]}" | xargs -P "$(nproc)" -I{} sh -c '
  FANTAIL_SEEDS={} "$0" worker::tests::model --nocapture 2>&1 | grep -E "^figure: model|panicked|replay with|is missing|comes again" ||
    echo "model.sh: {} said nothing"' "$built" >target/model.log || status=$?
if [ $status -ne 0 ] || grep -qv '^figure: model' target/model.log; then
  grep -v '^figure: model' target/model.log >&2 || true
  echo "model.sh: FAILED" >&2
  exit 1
fi
awk '{
  for (i = 1; i < NF; i++) if ($i + 0 == $i) { sum[$(i + 1)] += $i }
  steps += $3; stories += $6
} END {
  printf "figure: model: %d steps in %d stories: %d publications, %d deletions, %d comings, %d cuts, %d askings, %d stops; %d messages came, %d gaps were told, lost in silence 0\n",
    steps, stories, sum["publications,"], sum["deletions,"], sum["comings,"], sum["cuts,"], sum["askings,"], sum["stops;"], sum["messages"], sum["gaps"]
}' target/model.log
