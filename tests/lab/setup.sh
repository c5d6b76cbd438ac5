#!/bin/sh
# Install what the lab needs of Debian. Quick when it is there; says what is wrong when it cannot.
set -eu
here=$(dirname "$0")

fail() {
    echo "The lab cannot run here: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "it makes namespaces, mounts and loop devices, so it needs root. Run it as root."
# shellcheck disable=SC1091
. /etc/os-release
[ "${ID:-}:${VERSION_ID:-}" = debian:12 ] ||
    fail "it takes LXD, Ceph, OVN and Open vSwitch from the packages of Debian 12, and this is ${PRETTY_NAME:-another system}. With a Juju controller, run the same tests there: make integration JUJU=real."

missing=
# shellcheck disable=SC2013
for package in $(cat "$here"/packages/*.txt); do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=absent
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing$missing"
# No daemon of these packages may start on the host itself: the lab's machines run them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install$missing (the last lines of its output stand above; the whole is in $log)."
fi
rm -f "$log"
