#!/usr/bin/env bash
# Makes compose/.env with random secrets, unless it is there.
set -euo pipefail
file=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/.env
[ ! -e "$file" ] || exit 0
umask 077
cat >"$file" <<ENV
POSTGRES_PASSWORD=$(openssl rand -hex 16)
ADMIN_API_KEY=$(openssl rand -hex 24)
HOGSTREAM_ENCRYPTION_KEY=$(openssl rand -base64 32)
ENV
echo "made $file; keep it: the database's password and its sealed secrets depend on it"
