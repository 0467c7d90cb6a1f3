#!/bin/sh
# Sees to commands that come from the system: `system-packages.sh COMMAND…`, of java, mvn, redis-server, promtool and git.
# Where they are missing: on Debian as root they are installed, elsewhere one line says how to get them.
set -eu

missing=""
packages=""
for command in "$@"; do
    if [ "$command" = java ]; then
        java -version >/dev/null 2>&1 && continue
        package=default-jre-headless
    else
        command -v "$command" >/dev/null 2>&1 && continue
        case $command in
        mvn) package=maven ;;
        promtool) package=prometheus ;;
        *) package=$command ;;
        esac
    fi
    missing="$missing $command"
    packages="$packages $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $packages >&2
else
    echo "missing:$missing. On Debian or Ubuntu: sudo apt-get install$packages;" \
        "on macOS: brew install openjdk maven redis prometheus git" >&2
    exit 1
fi
