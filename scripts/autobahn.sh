#!/usr/bin/env bash
# Runs Autobahn's WebSocket cases against a release build of the server and judges the report.
#
# usage: scripts/autobahn.sh [REPORT_DIRECTORY]
#
# Environment: FANTAIL_IO chooses the server's driver.
#
# The cases and their client come from the Python package kosoku, installed into a virtual environment below target/.
set -euo pipefail
cd "$(dirname "$0")/.."

report=${1:-target/autobahn}
venv=target/autobahn-venv
binary=target/release/fantail

[ -x "$binary" ] || cargo build --release --locked
if ! [ -x "$venv/bin/kosoku" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check kosoku==0.1.0
fi

# The largest cases send 16 MiB in one message; an outbox holds at least two messages.
banner=$(mktemp)
"$binary" serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --max-message-size 16MiB --outbox-size 33MiB --history-bytes 16MiB >"$banner" &
server=$!
trap '[ -z "$server" ] || kill "$server" || true; rm -f "$banner"' EXIT

port=
for _ in $(seq 100); do
  port=$(grep -v admin "$banner" | grep -oE -m1 'http://127\.0\.0\.1:[0-9]+' | grep -oE '[0-9]+$' || true)
  [ -n "$port" ] && break
  sleep 0.1
done
[ -n "$port" ] || { echo "the server names no port within 10 s" >&2; exit 1; }

rm -rf "$report"
"$venv/bin/kosoku" -m fuzzingclient -p 4 -x '12.*' -x '13.*' -o "$report" "ws://127.0.0.1:$port/echo" >"$report.log" 2>&1 ||
  echo "the client ended with status $?; its report decides" >&2
python3 tests/autobahn/check.py "$report" || { tail -20 "$report.log" >&2; exit 1; }

stopping=$server
server=
kill "$stopping"
wait "$stopping" || { echo "the server did not stop in order: status $?" >&2; exit 1; }
