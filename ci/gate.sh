#!/usr/bin/env bash
# What the GitHub action and the GitLab template run: one gate, its documents in $TAILGATE_OUT, its verdict as outputs.
#
#   TAILGATE_POLICY      the policy file
#   TAILGATE_BASELINE    glob of stored runs; with TAILGATE_CANDIDATE, instead of measuring now
#   TAILGATE_ARGS        further flags
#   TAILGATE_OUT         folder for runs and documents
#
# Exits with the verdict's code; with 0 where it is INCONCLUSIVE and the policy calls that neutral.
set -uo pipefail

arguments=(--policy "$TAILGATE_POLICY" --out "$TAILGATE_OUT")
[ -n "${TAILGATE_BASELINE:-}" ] && arguments+=(--baseline "$TAILGATE_BASELINE")
[ -n "${TAILGATE_CANDIDATE:-}" ] && arguments+=(--candidate "$TAILGATE_CANDIDATE")
# Flags, split at blanks as in a shell.
read -r -a more <<< "${TAILGATE_ARGS:-}"

tailgate gate "${arguments[@]}" ${more[@]+"${more[@]}"}
code=$?

verdict="" blocks=true
if [ -f "$TAILGATE_OUT/verdict.json" ]; then
  read -r verdict blocks < <(python3 -c '
import json, sys
found = json.load(open(sys.argv[1]))
print(found["verdict"], str(found["blocks"]).lower())' "$TAILGATE_OUT/verdict.json")
fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'verdict=%s\nexit-code=%s\nblocks=%s\n' "$verdict" "$code" "$blocks" >> "$GITHUB_OUTPUT"
fi
[ "$verdict" = INCONCLUSIVE ] && [ "$blocks" = false ] && exit 0
exit "$code"
