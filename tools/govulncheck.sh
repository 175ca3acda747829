#!/usr/bin/env bash
# Checks the module for known vulnerabilities that its code can reach.
#
# usage: tools/govulncheck.sh PATH_TO_GOVULNCHECK [PACKAGES...]
#
# Fails for a vulnerability found and for any other error, except one: when the
# vulnerability database cannot be fetched nothing can be said, so it says so
# loudly and passes. Set GOVULNDB to use a mirror, VULN_REQUIRED=1 to fail
# instead of passing.
set -euo pipefail

tool=$1
shift
[ $# -gt 0 ] || set -- ./...

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT

db=()
[ -z "${GOVULNDB:-}" ] || db=(-db "$GOVULNDB")

if "$tool" "${db[@]}" "$@" 2>"$errors"; then
    cat "$errors" >&2
    exit 0
else
    code=$?
fi
cat "$errors" >&2

# Exit code 3 means "found". Only the fetch itself is reported with these words.
if [ "$code" -ne 3 ] && grep -q 'fetching vulnerabilities:' "$errors" && [ -z "${VULN_REQUIRED:-}" ]; then
    cat >&2 <<'WARN'

############################################################################
#  SKIPPED: govulncheck could not reach the vulnerability database.        #
#  Nothing is known about vulnerable dependencies from this run.           #
#  Run `make lint` again with network access before a release,             #
#  or set GOVULNDB to a mirror.                                            #
############################################################################

WARN
    exit 0
fi
exit "$code"
