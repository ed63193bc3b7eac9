#!/bin/bash
# Unbound, a validating resolver on loopback before an authoritative server on loopback (knot.sh): sets AD for signed zones.
#   AUTH=127.0.0.1:PORT TRUST_DS="signed.test. DS .." unbound.sh start DIR      prints DNS=127.0.0.1:PORT
# Package: unbound. Environment: BOGUS, a name below which nothing validates.
. "$(dirname "$0")/common.sh"
PIDFILE=unbound.pid

begin() {
  need unbound unbound; ports PORT
  { cat <<C
server:
  interface: 127.0.0.1
  port: $PORT
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
  daemon "$DIR/unbound.log" unbound-checkconf "$DIR/unbound.conf"
  daemon "$DIR/unbound.log" unbound -c "$DIR/unbound.conf"
  await "$DIR/unbound.log" answers $PORT
  echo "DNS=127.0.0.1:$PORT"
}

peer "$@"
