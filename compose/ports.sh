#!/usr/bin/env bash
# Says which of the stack's ports are taken on this machine, and the variable that moves each,
# before anything is built. Ports that the running stack holds itself are not asked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Variables of the environment win over those of .env, as with docker compose.
port_of() { # NAME DEFAULT
    local value=${!1:-}
    if [ -z "$value" ] && [ -e .env ]; then
        value=$(sed -n "s/^$1=//p" .env | tail -n 1 | tr -d "\"'[:space:]")
    fi
    echo "${value:-$2}"
}

if command -v docker >/dev/null 2>&1 && [ -n "$(docker compose -f compose.yaml ps --quiet 2>/dev/null)" ]; then
    exit 0
fi
taken=0
while IFS=: read -r name default; do
    port=$(port_of "$name" "$default")
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "port $port is taken: stop what listens there, or set $name to another port" >&2
        taken=1
    fi
done < <(sed -n 's/.*"127\.0\.0\.1:\${\([A-Z_]*\):-\([0-9]*\)}:[0-9]*".*/\1:\2/p' compose.yaml)
exit $taken
