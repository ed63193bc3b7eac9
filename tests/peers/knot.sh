#!/bin/bash
# Knot DNS, authoritative on loopback (UDP and TCP). Zones whose name begins with "signed" are signed by DNSSEC.
#   knot.sh start DIR | stop DIR          prints DNS=127.0.0.1:PORT, TRUST_DS=... (of signed.test)
# Packages: knot, knot-dnsutils (kdig). Environment: ZONES, a folder of NAME.zone files (read from there: change one, then kill -HUP).
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
  need knotd knot; need kdig knot-dnsutils
  mkdir -p "$DIR/db" "$DIR/run"; port
  { cat <<C
server:
    listen: 127.0.0.1@$P
    rundir: $DIR/run
    pidfile: $DIR/run/knot.pid
database:
    storage: $DIR/db
log:
  - target: $DIR/knot.log
    any: info
policy:
  - id: p
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
C
    for f in "$ZONES"/*.zone; do z=$(basename "$f" .zone)
      printf '  - domain: %s\n    file: %s\n    zonefile-sync: -1\n    journal-content: all\n    zonefile-load: difference-no-serial\n' "$z" "$f"
      case $z in signed*) printf '    dnssec-signing: on\n    dnssec-policy: p\n';; esac; done; } > "$DIR/knot.conf"
  knotd -d -c "$DIR/knot.conf" >"$DIR/start.out" 2>&1 || { cat "$DIR/start.out" >&2; exit 1; }
  for i in $(seq 1 600); do kdig +tcp @127.0.0.1 -p $P signed.test DNSKEY +short 2>/dev/null | grep -q . && break; sleep 0.1; done
  DS=$(keymgr -c "$DIR/knot.conf" signed.test ds 2>/dev/null | grep ' 13 2 ' | head -1)
  echo "DNS=127.0.0.1:$P"; echo "TRUST_DS=$DS" ;;
stop) stoppid "$DIR/run/knot.pid" ;;
*) exit 2;;
esac
