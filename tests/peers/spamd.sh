#!/bin/bash
# Debian's spamd on loopback, without network tests and with its own rules only.
#   spamd.sh start DIR      prints SPAMD=127.0.0.1:PORT
# Packages: spamd spamc.
. "$(dirname "$0")/common.sh"
PIDFILE=spamd.pid

begin() {
  need spamd spamd; ports PORT
  cp /etc/spamassassin/*.pre "$DIR/"; echo "use_bayes 0" > "$DIR/local.cf"
  daemon "$DIR/spamd.log" spamd --local --nouser-config --helper-home-dir="$DIR" --siteconfigpath="$DIR" --max-children=2 --listen=127.0.0.1:$PORT \
    --allowed-ips=127.0.0.1 --pidfile="$DIR/spamd.pid" --syslog="$DIR/spamd.log" --daemonize
  await "$DIR/spamd.log" answers $PORT
  echo "SPAMD=127.0.0.1:$PORT"
}

peer "$@"
