#!/bin/bash
# Unbound, a validating resolver on loopback before an authoritative server on loopback (knot.sh): sets AD for signed zones.
#   AUTH=127.0.0.1:PORT TRUST_DS="signed.test. DS .." unbound.sh start DIR | stop DIR      prints DNS=127.0.0.1:PORT
# Package: unbound. Environment: BOGUS, a name below which nothing validates.
set -eu
need() { command -v "$1" >/dev/null 2>&1 || { echo "missing $1: apt-get install $2" >&2; exit 3; }; }
port() { # next free loopback port, in P
  while :; do
    P=$((20000 + RANDOM % 12000))
    if ! (exec 3<>/dev/tcp/127.0.0.1/$P) 2>/dev/null; then return; fi
  done; }
stoppid() { # pid file
  local p i; [ -s "$1" ] || return 0; p=$(head -1 "$1" | tr -d " "); kill "$p" 2>/dev/null || return 0
  for i in $(seq 1 100); do kill -0 "$p" 2>/dev/null || return 0; sleep 0.1; done; kill -9 "$p" 2>/dev/null || true; }

CMD=${1:?start or stop}; DIR=${2:?directory}
case $CMD in
start)
  need unbound unbound; port
  { cat <<C
server:
  interface: 127.0.0.1
  port: $P
  do-ip6: no
  username: ""
  chroot: ""
  directory: "$DIR"
  pidfile: "$DIR/unbound.pid"
  logfile: "$DIR/unbound.log"
  use-syslog: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  cache-max-ttl: 1
  cache-max-negative-ttl: 1
  access-control: 127.0.0.0/8 allow
  domain-insecure: "plain.test"
  local-zone: "test." nodefault
  val-log-level: 2
  trust-anchor: "$TRUST_DS"
C
    [ -z "${BOGUS:-}" ] || echo "  trust-anchor: \"$BOGUS DS 4711 13 2 $(printf '0%.0s' $(seq 1 64))\""
    for z in signed.test plain.test; do printf 'stub-zone:\n  name: "%s"\n  stub-addr: %s@%s\n  stub-no-cache: yes\n' "$z" "${AUTH%:*}" "${AUTH##*:}"; done
    echo "remote-control:"; echo "  control-enable: no"; } > "$DIR/unbound.conf"
  unbound-checkconf "$DIR/unbound.conf" >"$DIR/start.out" 2>&1 || { cat "$DIR/start.out" >&2; exit 1; }
  unbound -c "$DIR/unbound.conf"
  for i in $(seq 1 600); do (exec 3<>/dev/tcp/127.0.0.1/$P) 2>/dev/null && break; sleep 0.1; done
  echo "DNS=127.0.0.1:$P" ;;
stop) stoppid "$DIR/unbound.pid" ;;
*) exit 2;;
esac
