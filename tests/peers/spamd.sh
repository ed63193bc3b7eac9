#!/bin/bash
# Debian's spamd on loopback, without network tests and with its own rules only.
#   spamd.sh start DIR | stop DIR      prints SPAMD=127.0.0.1:PORT
# Packages: spamd spamc.  Environment: PORTBASE.
set -eu
need() { command -v "$1" >/dev/null 2>&1 || { echo "missing $1: apt-get install $2" >&2; exit 3; }; }
N=0
port() { # next free loopback port, in P
  local p
  while :; do
    if [ -n "${PORTBASE:-}" ]; then p=$((PORTBASE + N)); N=$((N+1)); else p=$((20000 + RANDOM % 12000)); fi
    if ! (exec 3<>/dev/tcp/127.0.0.1/$p) 2>/dev/null; then P=$p; return; fi
    [ -z "${PORTBASE:-}" ] || { echo "port $p is taken" >&2; exit 4; }
  done; }
waitport() { local i; for i in $(seq 1 ${2:-600}); do (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null && return 0; sleep 0.1; done
  echo "not ready on port $1" >&2; return 1; }

CMD=${1:?start or stop}; DIR=${2:?directory}
case $CMD in
start)
  need spamd spamd; mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd); port
  cp /etc/spamassassin/*.pre "$DIR/"; echo "use_bayes 0" > "$DIR/local.cf"
  spamd --local --nouser-config --helper-home-dir="$DIR" --siteconfigpath="$DIR" --max-children=2 --listen=127.0.0.1:$P \
    --allowed-ips=127.0.0.1 --pidfile="$DIR/spamd.pid" --syslog="$DIR/spamd.log" --daemonize >"$DIR/start.out" 2>&1 || { cat "$DIR/start.out" >&2; exit 1; }
  waitport $P; echo "SPAMD=127.0.0.1:$P" | tee "$DIR/ports.env" ;;
stop) [ -s "$DIR/spamd.pid" ] && kill "$(cat "$DIR/spamd.pid")" 2>/dev/null || true ;;
*) exit 2;;
esac
