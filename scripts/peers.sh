#!/usr/bin/env bash
# The servers that Fantail is compared with: what the package registries carry, and small servers around libraries.
#
# usage: scripts/peers.sh [COMMAND]
#
#   install            install and build what is missing (Debian packages as root); also what no argument means. What can't be
#                      had doesn't keep the others from being built; the exit status then is 1
#   list               which servers there are, and which of them are ready
#   start NAME PORT    become that server, on 127.0.0.1:PORT, in the foreground, until SIGTERM
#
# How each is set up stands in loadtest/peers/, file by file, with the page of its documentation that recommends it. What is built
# goes to target/peers/, and loadtest/peers/node/node_modules/. No service is started or enabled by the installation.
#
# Environment: FANTAIL_PEER_FLAGS is added to the command of a server in Rust or Node, such as --threads 2 or --no-cork.
set -euo pipefail
cd "$(dirname "$0")/.."

peers=$PWD/loadtest/peers
built=$PWD/target/peers
# Where Debian keeps servers, for whoever is not root.
PATH=$PATH:/usr/sbin
names=(tokio-tungstenite fastwebsockets tokio-websockets ws socket.io faye jetty nchan nats nats-websocket redis)
services=(nginx redis-server nats-server)

java_libraries=/usr/share/java
java_path=
for library in server http io util websocket-api websocket-common websocket-server websocket-servlet; do
  java_path+=$java_libraries/jetty9-$library.jar:
done
java_path+=$java_libraries/servlet-api.jar:$built/jetty

# Debian's packages, each with the file that tells whether it is there; a command may also be there from elsewhere.
packages_missing() {
  local command
  for command in cc:gcc node:nodejs npm:npm nginx:nginx nats-server:nats-server redis-server:redis-server; do
    command -v "${command%%:*}" >/dev/null || echo "${command##*:}"
  done
  javac -version >/dev/null 2>&1 || echo default-jdk-headless
  [ -e /usr/lib/nginx/modules/ngx_nchan_module.so ] || echo libnginx-mod-nchan
  [ -e $java_libraries/jetty9-server.jar ] || echo libjetty9-java
  [ -e $java_libraries/jetty9-websocket-server.jar ] || echo libjetty9-extra-java
}

# A service that was not there before must neither run after its installation nor at the next start of the machine.
install_packages() {
  local policy=/usr/sbin/policy-rc.d service new=() packages
  mapfile -t packages < <(packages_missing | sort -u)
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" -ne 0 ]; then
    echo "install as root: apt-get install ${packages[*]}" >&2
    return 1
  fi
  for service in "${services[@]}"; do
    case " ${packages[*]} " in *" $service "*) new+=("$service") ;; esac
  done
  # Debian asks this file whether a package may start its service. One that is there already is somebody's decision.
  if [ ! -e $policy ]; then
    # shellcheck disable=SC2064
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  apt-get update -qq || return 1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null || return 1
  for service in "${new[@]}"; do
    if [ -d /run/systemd/system ]; then
      systemctl --quiet disable --now "$service.service" || return 1
    elif [ -e "/etc/init.d/$service" ]; then
      update-rc.d "$service" disable || return 1
    fi
  done
}

# Each step tells why it fails, and the others go on.
install() {
  local status=0
  install_packages || status=1
  build_rust || status=1
  build_node || status=1
  build_jetty || status=1
  [ $status -eq 0 ] || echo "peers.sh: some servers are missing: scripts/peers.sh list" >&2
  return $status
}

build_rust() {
  cargo build --locked --release --manifest-path "$peers/rust/Cargo.toml" --target-dir "$built/rust"
}

build_node() {
  # What npm has installed it notes in a lock file of its own; it is older than ours when ours has changed.
  if [ ! "$peers/node/node_modules/.package-lock.json" -nt "$peers/node/package-lock.json" ]; then
    npm ci --prefix "$peers/node" --no-audit --no-fund
  fi
}

build_jetty() {
  if [ ! "$built/jetty/Peer.class" -nt "$peers/jetty/Peer.java" ]; then
    mkdir -p "$built/jetty" && javac -d "$built/jetty" -cp "$java_path" "$peers/jetty/Peer.java"
  fi
}

# The programs and files without which a server can't be started, as `needs` in compare.toml has them.
needs() {
  case $1 in
    tokio-tungstenite | fastwebsockets | tokio-websockets) echo "$built/rust/release/$1" ;;
    ws | socket.io | faye) printf '%s\n' node "$peers/node/node_modules/$1/package.json" ;;
    jetty) printf '%s\n' java "$built/jetty/Peer.class" ;;
    nchan) printf '%s\n' nginx /usr/lib/nginx/modules/ngx_nchan_module.so ;;
    nats | nats-websocket) echo nats-server ;;
    redis) echo redis-server ;;
    *) return 1 ;;
  esac
}

# What of that is not there.
missing() {
  local needed all
  mapfile -t all < <(needs "$1")
  for needed in "${all[@]}"; do
    case $needed in
      */*) [ -e "$needed" ] || echo "$needed" ;;
      *) command -v "$needed" >/dev/null || echo "$needed" ;;
    esac
  done
}

list() {
  local name state
  for name in "${names[@]}"; do
    state=$(missing "$name")
    state=${state:+missing ${state//$'\n'/ }}
    printf '%-18s %s\n' "$name" "${state:-ready}"
  done
}

start() {
  local name=$1 port=$2 absent flags=() scratch=$built/run/$1-$2
  needs "$name" >/dev/null || { echo "no server $name: see $0 list" >&2; exit 2; }
  absent=$(missing "$name")
  [ -z "$absent" ] || { echo "$name lacks ${absent//$'\n'/, }: $0 install" >&2; exit 1; }
  read -ra flags <<<"${FANTAIL_PEER_FLAGS:-}"
  # Thousands of connections, as far as the hard limit goes.
  ulimit -n "$(ulimit -Hn)"
  mkdir -p "$scratch"
  case $name in
    tokio-tungstenite | fastwebsockets | tokio-websockets)
      exec "$built/rust/release/$name" "$port" "${flags[@]}"
      ;;
    ws | socket.io | faye)
      NODE_ENV=production exec node "$peers/node/$name.js" "$port" "${flags[@]}"
      ;;
    jetty)
      exec java -Dorg.eclipse.jetty.LEVEL=WARN -cp "$java_path" Peer "$port"
      ;;
    nchan)
      sed "s/@PORT@/$port/" "$peers/nginx/nginx.conf" >"$scratch/nginx.conf"
      exec nginx -p "$scratch" -c "$scratch/nginx.conf" -e stderr
      ;;
    nats)
      FANTAIL_PEER_TCP_PORT=$port FANTAIL_PEER_WEBSOCKET_PORT=-1 exec nats-server -c "$peers/nats/nats.conf"
      ;;
    nats-websocket)
      FANTAIL_PEER_TCP_PORT=-1 FANTAIL_PEER_WEBSOCKET_PORT=$port exec nats-server -c "$peers/nats/nats.conf"
      ;;
    redis)
      exec redis-server "$peers/redis/redis.conf" --port "$port" --dir "$scratch"
      ;;
  esac
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
}

case "$#:${1:-install}" in
  0:install | 1:install) install ;;
  1:list) list ;;
  3:start) start "$2" "$3" ;;
  1:-h | 1:--help) usage ;;
  *) usage >&2; exit 2 ;;
esac
