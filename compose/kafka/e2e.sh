#!/usr/bin/env bash
# Runs the end-to-end suite (build tag e2e) on real Kafka.
#
# usage: compose/kafka/e2e.sh [GO TEST FLAGS...]
#
# With KAFKA_BROKERS and SCHEMA_REGISTRY_URL set it runs once, on those, with
# whatever authentication the environment names. Otherwise it uses the instance
# of kafka.sh that runs, or starts one on free ports and deletes it afterwards,
# and runs the suite twice: on the plain listener, then with SASL/SCRAM and TLS.
# The second run has -short: the suite leaves out there what authentication
# cannot change. Before that public libraries verify signed requests
# (HOGSTREAM_PUBLIC_LIBRARIES= lets that be skipped where they cannot be fetched).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."

suite() {
    echo "== end to end: $1"
    shift
    go test -tags e2e -count=1 -timeout "${E2E_TIMEOUT:-30m}" "$@" ./e2e/...
}

echo "== webhooks are verified by public libraries (Go and npm)"
HOGSTREAM_PUBLIC_LIBRARIES="${HOGSTREAM_PUBLIC_LIBRARIES-required}" go test -count=1 -run 'Public' ./sinks

if [ -n "${KAFKA_BROKERS:-}" ] && [ -n "${SCHEMA_REGISTRY_URL:-}" ]; then
    suite "on $KAFKA_BROKERS" "$@"
    exit
fi
if [ -n "${KAFKA_BROKERS:-}${SCHEMA_REGISTRY_URL:-}" ]; then
    echo "e2e: set both KAFKA_BROKERS and SCHEMA_REGISTRY_URL, or neither" >&2
    exit 1
fi

if [ -z "${KAFKA_INSTANCE:-}" ] && ! { "$here/kafka.sh" status 2>/dev/null | grep -q '^broker 1 *running'; }; then
    export KAFKA_INSTANCE=e2e-$$ KAFKA_PORT=auto REGISTRY_PORT=auto
    trap '"$here/kafka.sh" clean' EXIT
fi
"$here/kafka.sh" start >/dev/null

plain=$("$here/kafka.sh" env)
authenticated=$("$here/kafka.sh" env --sasl)
(eval "$plain" && suite "plain" "$@")
(eval "$authenticated" && suite "with SASL/SCRAM and TLS" -short "$@")
