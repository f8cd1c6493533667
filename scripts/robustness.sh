#!/usr/bin/env bash
# The tests of crowds at the size the server is meant for, one at a time, on a release build, and then a minute of publishing, cutting,
# killing and resuming by `fantail-loadtest verify`. Prints their figures.
#
# usage: scripts/robustness.sh [TEST...]
#
#   TEST   FILE:NAME of a test, or verify; all of them if none is given
#
# Some six minutes on two CPUs. The largest test needs 19,100 descriptors in the server and as many in the client. Environment:
# FANTAIL_IO chooses the server's driver.
set -euo pipefail
cd "$(dirname "$0")/.."

# file:test
all_tests=(
  crowd:a_storm_of_connections_through_the_stop_sees_no_reset
  crowd:many_who_never_read_are_cut_and_cost_the_healthy_nothing
  crowd:a_crowd_that_comes_back_at_once_is_let_in_and_told_when_to_come_the_next_time
  crowd:a_ping_is_answered_while_a_fan_out_to_a_crowd_runs
  process:a_drain_closes_each_connection_with_its_delay_to_return
  process:what_was_acknowledged_before_the_end_is_delivered
  resources:drip_feeders_are_cut_at_the_deadline_and_disturb_nobody
  resources:connections_that_come_and_go_leave_nothing
  events:a_client_that_leaves_or_shuts_its_side_is_let_go
  events:streams_whose_clients_stop_reading_are_cut_as_stalled
  kill:after_a_kill_under_load_the_port_is_bound_at_once_and_nobody_misses_anything_in_silence
  log:a_log_that_nobody_reads_costs_lines_and_no_time
  log:a_full_disk_costs_lines_and_nothing_else
  verify
)

# A minute in which the server is killed every ten seconds and every subscriber is cut every other second.
verify() {
  cargo build --locked --release --workspace --bins >"$log" 2>&1
  target/release/fantail-loadtest verify 'http://127.0.0.1:{port}/topics/{topic}' --duration 60s --kill-every 10s --cut-every 2s \
    --topics 8 --subscribers 30 --rate 100 -- target/release/fantail serve --workers 2 --listen '127.0.0.1:{port}' --admin 127.0.0.1:0 \
    --log-level warn >"$log" 2>&1
}

descriptors=$(ulimit -Hn)
if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt 19200 ]; then
  echo "a process may have $descriptors descriptors; the tests need 19,200 (ulimit -Hn)" >&2
  exit 1
fi

tests=("$@")
[ $# -gt 0 ] || tests=("${all_tests[@]}")
export FANTAIL_FULL=1
failed=()
log=target/robustness.log
for each in "${tests[@]}"; do
  printf '\n==> %s\n' "${each#*:}"
  if [ "$each" = verify ]; then
    verify || failed+=(verify)
    sed 's/^/figure: /' "$log"
    continue
  fi
  # The log decides: in it stands whether the one test passed.
  cargo test --locked --release --test "${each%%:*}" -- --exact "${each#*:}" --nocapture --test-threads 1 >"$log" 2>&1 || true
  grep -oE 'figure: .*|.*panicked at.*|^assertion .*|^ +(left|right): .*' "$log" || true
  grep -q '^test result: ok. 1 passed' "$log" || failed+=("${each#*:}")
done

[ ${#failed[@]} -eq 0 ] || { printf '\nrobustness.sh: FAILED\n'; printf '  %s\n' "${failed[@]}"; exit 1; } >&2
printf '\nrobustness.sh: all passed\n'
