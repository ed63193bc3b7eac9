#!/bin/bash
# Knot DNS, authoritative on loopback (UDP and TCP). Zones whose name begins with "signed" are signed by DNSSEC.
#   knot.sh start DIR      prints DNS=127.0.0.1:PORT, TRUST_DS=... (of signed.test)
# Packages: knot, knot-dnsutils (kdig). Environment: ZONES, a folder of NAME.zone files (read from there: change one, then kill -HUP).
. "$(dirname "$0")/common.sh"
PIDFILE=run/knot.pid

begin() {
  need knotd knot; need kdig knot-dnsutils
  mkdir -p "$DIR/db" "$DIR/run"; ports PORT
  { cat <<C
server:
    listen: 127.0.0.1@$PORT
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
  daemon "$DIR/knot.log" knotd -d -c "$DIR/knot.conf"
  await "$DIR/knot.log" has_keys
  DS=$(keymgr -c "$DIR/knot.conf" signed.test ds 2>/dev/null | grep ' 13 2 ' | head -1)
  echo "DNS=127.0.0.1:$PORT"; echo "TRUST_DS=$DS"
}

has_keys() { kdig +tcp @127.0.0.1 -p $PORT signed.test DNSKEY +short | grep -q .; }

peer "$@"
