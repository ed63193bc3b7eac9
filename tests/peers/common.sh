# What the starters of real peers share; each sources this, defines begin() and PIDFILE, and ends with `peer "$@"`.
#   NAME.sh start DIR      begins the peer in DIR and prints NAME=value lines once it answers
#   NAME.sh stop DIR       ends it
# begin() runs with DIR absolute. What goes wrong is said on standard error, with the end of the peer's own log; exit 3: a package is missing.
set -eu
PATIENCE=120 # Seconds. A loaded machine starts a daemon slowly; a broken one ends by itself.

need() { # program or file, package
  [ -e "$1" ] || command -v "$1" >/dev/null 2>&1 || { echo "missing $1: apt-get install $2" >&2; exit 3; }; }

# ports NAME…: free ports of loopback, each in its variable. The kernel picks them. A connection that we close first leaves
# its port in TIME_WAIT, so that nobody is given it meanwhile; a server (SO_REUSEADDR) may listen there.
ports() {
  local name found; found=$(python3 - $# <<'P'
import socket, sys
held = []
for _ in range(int(sys.argv[1])):
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    held.append((server, server.accept()[0], client))
for server, accepted, client in held:
    print(server.getsockname()[1])
    accepted.close(); client.close(); server.close()
P
  )
  for name; do read -r "$name"; done <<<"$found"; }

certificate() { # common name, further names: DIR/cert.pem and DIR/key.pem, unless they are there
  need openssl openssl
  [ -s "$DIR/cert.pem" ] || openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=$1" \
    -addext "subjectAltName=DNS:localhost,$2,IP:127.0.0.1" -keyout "$DIR/key.pem" -out "$DIR/cert.pem" 2>/dev/null; }

daemon() { # log, command: a daemon that leaves for the background; it must not hold the pipe of whoever reads our lines
  local log=$1; shift
  timeout --foreground $PATIENCE "$@" >"$DIR/start.out" 2>&1 </dev/null || { echo "$1 does not start" >&2; tail -n 20 "$DIR/start.out" "$log" >&2 2>/dev/null; exit 1; }; }

background() { # log, command: a server that stays in the foreground, here in the background; PIDFILE names it
  local log=$1; shift
  "$@" >>"$log" 2>&1 </dev/null & STARTED=$!; echo $STARTED > "$DIR/$PIDFILE"; }

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # port

await() { # log, command: until the command succeeds
  local log=$1 until=$((SECONDS + PATIENCE)); shift
  until "$@" 2>/dev/null; do
    [ $SECONDS -lt $until ] && kill -0 ${STARTED:-$$} 2>/dev/null || { echo "after $SECONDS s still no success: $*" >&2; tail -n 20 "$log" >&2; exit 1; }
    sleep 0.1
  done; }

stop() { # pid file
  local pid until=$((SECONDS + PATIENCE / 4)); [ -s "$1" ] || return 0
  read -r pid < "$1" || true
  kill "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do [ $SECONDS -lt $until ] || { kill -9 "$pid" 2>/dev/null; return 0; }; sleep 0.1; done; }

peer() { # start or stop, folder
  DIR=${2:?directory}
  case ${1:?start or stop} in
    start) mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd); begin ;;
    stop) stop "$DIR/$PIDFILE" ;;
    *) echo "start or stop" >&2; exit 2 ;;
  esac; }
