#!/usr/bin/env bash
# Installs what the tests need beside the Rust toolchain, where that can be done without asking; with `erp`, what those
# with a real ERP need too.
set -eu

needed=()
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || needed+=(postgresql)
[ -x /usr/sbin/mariadbd ] || command -v mariadbd >/dev/null || needed+=(mariadb-server-core mariadb-client-core)
[ "${1:-}" != erp ] || python3 -c 'import ensurepip, venv' 2>/dev/null || needed+=(python3-venv)
command -v gcc >/dev/null || needed+=(gcc libc6-dev)
command -v g++ >/dev/null || needed+=(g++)
[ "${#needed[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "the tests need ${needed[*]}: install them with this system's package manager, then try again" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo --non-interactive true 2>/dev/null; then
    as_root=(sudo --non-interactive)
else
    echo "the tests need ${needed[*]}: run 'apt-get install ${needed[*]}' as root, then try again" >&2
    exit 1
fi
echo "installing ${needed[*]}"
# Installing PostgreSQL would otherwise start a server of the machine's own, which the tests do not use.
"${as_root[@]}" mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${needed[@]}" >/dev/null
