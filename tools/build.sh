#!/usr/bin/env bash
# build.sh COMMAND…: runs a build (go build -v …), and every 2 seconds says what it is at.
# A build that is quick says nothing; one that fails says all.
set -eu
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$@" >"$said" 2>&1 &
build=$!
trap 'kill "$build" 2>/dev/null; rm -f "$said"; exit 130' INT TERM
for _ in {1..20}; do # a quick one is not held up
  kill -0 "$build" 2>/dev/null || break
  sleep 0.1
done
while kill -0 "$build" 2>/dev/null; do
  echo "building … $(wc -l <"$said") packages, now $(tail -n 1 "$said") ($SECONDS s; the first time takes minutes)" >&2
  sleep 2
done
wait "$build" || { cat "$said" >&2; exit 1; }
