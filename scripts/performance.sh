#!/usr/bin/env bash
# What a message costs, in figures that are the same on a busy machine as on a quiet one.
#
# usage: scripts/performance.sh instructions [--update]
#        scripts/performance.sh calls
#
#   instructions   in user space, by callgrind, of the floor and of Fantail, both on epoll. Each is held against
#                  benches/instructions.tsv: more than a tenth above it is a failure; --update writes the file anew
#   calls          system calls, by strace, of the floor and of Fantail on both drivers
#
# A server is run twice, with a small load and with a large one. The difference of the counts over the difference of the messages is
# what one more message costs, without the server's start, its connections and its end.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=target/release/fantail-loadtest
recorded=benches/instructions.tsv
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { pkill -P "$server"; kill "$server"; } 2>/dev/null; rm -r "$folder"' EXIT

# begin WRAPPER... -- NAME: a server under a wrapper; sets $address.
begin() {
  local name=${*: -1} wrapper=("${@:1:$#-2}") command
  case $name in
    floor) command=("$tool" floor) ;;
    floor-uring) command=("$tool" floor --uring) ;;
    fantail) command=(target/release/fantail serve --io epoll --workers 1 --echo --admin off --drain-window 0s) ;;
    fantail-uring) command=(target/release/fantail serve --io uring --workers 1 --echo --admin off --drain-window 0s) ;;
  esac
  : >"$folder/said"
  "${wrapper[@]}" "${command[@]}" --listen 127.0.0.1:0 >"$folder/said" 2>&1 &
  server=$!
  for _ in {1..300}; do
    address=$(grep -m 1 listening "$folder/said" | grep -o '127\.0\.0\.1:[0-9]*') && return
    sleep 0.1
  done
  echo "performance.sh: $name does not start: $(tail -n 3 "$folder/said")" >&2
  return 1
}

# end: the server ends in order, and its wrapper writes what it counted.
end() {
  # The wrapper's child, where it has one: strace stays until that has ended.
  local child
  child=$(pgrep -P "$server" || echo "$server")
  kill -TERM "$child"
  wait "$server" || true
  server=
}

# load COUNTER COMMAND PATH FLAGS...: a run against the server; sets $messages.
load() {
  local counter=$1 command=$2 path=$3
  shift 3
  # 3: the tool was late or busy, which changes no count.
  "$tool" "$command" "ws://$address/$path" --warmup 0s --json "$folder/run" "$@" >/dev/null || [ $? -eq 3 ]
  messages=$(grep -o "\"$counter\": [0-9]*" "$folder/run" | grep -o '[0-9]*$')
}

# split FLAGS... -- FEW -- MANY: sets $parts to the three, flags without spaces.
split() {
  local part= word
  parts=()
  for word in "$@"; do
    if [ "$word" = -- ]; then
      parts+=("$part")
      part=
    else
      part+=" $word"
    fi
  done
  parts+=("$part")
}

# instructions_of NAME COUNTER COMMAND PATH FLAGS... -- FEW -- MANY: of one more message; FEW and MANY are further flags.
instructions_of() {
  local name=$1 parts counted=() sent=() which
  split "${@:2}"
  for which in 1 2; do
    begin valgrind --quiet --tool=callgrind "--callgrind-out-file=$folder/profile" -- "$name"
    # shellcheck disable=SC2086  # flags without spaces
    load ${parts[0]} ${parts[$which]}
    end
    counted+=("$(sed -n 's/^\(summary\|totals\): \([0-9]*\).*/\2/p' "$folder/profile" | tail -n 1)")
    sent+=("$messages")
  done
  echo $(((counted[1] - counted[0]) / (sent[1] - sent[0])))
}

instructions() {
  command -v valgrind >/dev/null || { echo "performance.sh: install valgrind" >&2; exit 2; }
  local name figures=() figure before status=0
  for name in floor fantail; do
    figures+=("$name delivery of 128 B to 200"$'\t'"$(instructions_of $name delivered fanout 'topics/{topic}' --connections 200 --size 128 --duration 4s -- --rate 20 -- --rate 60)")
    figures+=("$name echo of 64 B"$'\t'"$(instructions_of $name returned echo echo --connections 20 --size 64 --duration 4s -- --rate 500 -- --rate 1500)")
    figures+=("$name echo of 64 B, 16 in flight"$'\t'"$(instructions_of $name returned echo echo --connections 100 --inflight 16 --size 64 -- --duration 1s -- --duration 4s)")
  done
  printf '%s\n' "${figures[@]}"
  if [ "${1:-}" = --update ]; then
    printf '%s\n' "${figures[@]}" >"$recorded"
    return
  fi
  for figure in "${figures[@]}"; do
    before=$(awk -F '\t' -v name="${figure%$'\t'*}" '$1 == name { print $2 }' "$recorded")
    if [ -z "$before" ] || [ "${figure#*$'\t'}" -gt $((before * 11 / 10)) ]; then
      echo "performance.sh: ${figure%$'\t'*}: ${figure#*$'\t'} instructions, recorded ${before:-none}" >&2
      status=1
    fi
  done
  return "$status"
}

# calls_of NAME COUNTER COMMAND PATH FLAGS... -- FEW -- MANY: by name, of one more message; FEW and MANY are further flags.
calls_of() {
  local name=$1 parts sent=() which
  split "${@:2}"
  for which in 1 2; do
    begin strace -f -c -o "$folder/calls.$which" -- "$name"
    # shellcheck disable=SC2086  # flags without spaces
    load ${parts[0]} ${parts[$which]}
    end
    sent+=("$messages")
  done
  # The column of calls is the fourth; errors, the fifth, may be missing; the name is the last.
  awk -v more=$((sent[1] - sent[0])) '
    $4 ~ /^[0-9]+$/ && $NF != "total" { calls[$NF] += (FILENAME ~ /1$/) ? -$4 : $4 }
    END { for (name in calls) if (calls[name] / more >= 0.0005) printf "%s %.3f\n", name, calls[name] / more }
  ' "$folder/calls.1" "$folder/calls.2" | sort -k 2 -r -n | paste -s -d ,
}

calls() {
  command -v strace >/dev/null || { echo "performance.sh: install strace" >&2; exit 2; }
  local name
  for name in floor fantail floor-uring fantail-uring; do
    echo "$name"
    echo "  a connection:                  $(calls_of $name opened connect echo --concurrency 64 --close rst -- --duration 1s -- --duration 3s)"
    echo "  an echo of 64 B, one a turn:   $(calls_of $name returned echo echo --connections 20 --duration 3s -- --rate 200 -- --rate 600)"
    echo "  an echo of 64 B, 100 at once:  $(calls_of $name returned echo echo --connections 100 -- --duration 1s -- --duration 3s)"
    echo "  an echo, 16 in flight:         $(calls_of $name returned echo echo --connections 20 --inflight 16 -- --duration 1s -- --duration 3s)"
    echo "  a delivery to 200, paced:      $(calls_of $name delivered fanout topics/load --connections 200 --duration 3s -- --rate 20 -- --rate 60)"
    echo "  a delivery to 200, 16 at once: $(calls_of $name delivered fanout topics/load --connections 200 --window 16 -- --duration 1s -- --duration 3s)"
  done
}

case ${1:-} in
  instructions | calls)
    cargo build --locked --release --workspace --bins
    "$@"
    ;;
  *)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
