#!/bin/bash
# Exim for the bench, beside the Postfix that Debian won't install it with. Nothing outside DIR is changed.
#   exim.sh unpack DIR            download Debian's packages and unpack them below DIR
#   exim.sh run DIR CONFIG ADDR   become the daemon, in a mount namespace that knows the user it was built for
set -e
case $1 in
unpack)
    mkdir -p "$2" && cd "$2"
    apt-get download exim4-daemon-light exim4-base libidn12
    for package in ./*.deb; do dpkg -x "$package" .; done
    ;;
run)
    DIR=$(realpath "$2") CONFIG=$3 ADDRESS=$4
    export DIR CONFIG ADDRESS
    exec unshare --mount bash -ec '
        (cat /etc/passwd; echo "Debian-exim:x:$(id -u mail):$(id -g mail)::/:/usr/sbin/nologin") > "$CONFIG.passwd"
        (cat /etc/group; echo "Debian-exim:x:$(id -g mail):") > "$CONFIG.group"
        chmod 644 "$CONFIG.passwd" "$CONFIG.group"
        mount --bind "$CONFIG.passwd" /etc/passwd
        mount --bind "$CONFIG.group" /etc/group
        # It starts itself anew with other rights, and then only the cache says where its libraries are.
        echo "$DIR/usr/lib/x86_64-linux-gnu" > "$CONFIG.libraries"
        ldconfig -f "$CONFIG.libraries" -C "$CONFIG.cache" 2> /dev/null
        mount --bind "$CONFIG.cache" /etc/ld.so.cache
        exec "$DIR/usr/sbin/exim4" -C "$CONFIG" -bdf -q1m -oX "$ADDRESS"'
    ;;
*) echo "usage: $0 unpack DIR | run DIR CONFIG ADDRESS" >&2; exit 2 ;;
esac
