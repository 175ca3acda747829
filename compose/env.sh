#!/usr/bin/env bash
# Makes compose/.env with random secrets. What is there stays; a secret that is missing or
# empty is made, for the data that other secrets seal is lost with them.
set -euo pipefail
file=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/.env
umask 077

random() { head -c "$1" /dev/urandom; }
hex() { random "$1" | od -An -v -tx1 | tr -d ' \n'; }
secret() {
    case $1 in
        POSTGRES_PASSWORD) hex 16 ;;
        ADMIN_API_KEY) hex 24 ;;
        HOGSTREAM_ENCRYPTION_KEY) random 32 | base64 | tr -d '\n' ;;
    esac
}

# All secrets exist before anything is written, and the file appears whole or not at all.
made=
for name in POSTGRES_PASSWORD ADMIN_API_KEY HOGSTREAM_ENCRYPTION_KEY; do
    if [ -e "$file" ] && grep -qE "^$name=[\"']?[^[:space:]\"']" "$file"; then continue; fi
    value=$(secret "$name")
    [ ${#value} -ge 32 ] || { echo "could not make $name from /dev/urandom" >&2; exit 1; }
    made+="$name=$value"$'\n'
done
[ -n "$made" ] || exit 0

new=$(mktemp "$file.XXXXXX")
trap 'rm -f "$new"' EXIT
# An empty secret's line would win over the new one in some readers, so it goes.
if [ -e "$file" ]; then
    grep -vE "^($(printf '%s' "$made" | cut -d= -f1 | paste -sd'|' -))=" "$file" >"$new" || [ $? -eq 1 ]
    [ ! -s "$new" ] || [ -z "$(tail -c 1 "$new")" ] || echo >>"$new"
fi
printf '%s' "$made" >>"$new"
mv "$new" "$file"
echo "made secrets in $file; keep it: the database's password and its sealed secrets depend on it"
