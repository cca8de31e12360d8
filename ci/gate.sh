#!/usr/bin/env bash
# What the GitHub action runs: one gate, its documents in $TAILGATE_OUT, its verdict as outputs. The GitLab template
# (gitlab.yml) is included without this repository and has its own few lines.
#
#   TAILGATE_POLICY      the policy file
#   TAILGATE_BASELINE    glob of stored runs; with TAILGATE_CANDIDATE, instead of measuring now
#   TAILGATE_ARGS        further flags, in words and quotes as in a shell, on any number of lines
#   TAILGATE_OUT         folder for runs and documents
#
# Exits with the verdict's code; with 0 where it is INCONCLUSIVE and the policy calls that neutral.
set -uo pipefail

arguments=(--policy "$TAILGATE_POLICY" --out "$TAILGATE_OUT")
[ -n "${TAILGATE_BASELINE:-}" ] && arguments+=(--baseline "$TAILGATE_BASELINE")
[ -n "${TAILGATE_CANDIDATE:-}" ] && arguments+=(--candidate "$TAILGATE_CANDIDATE")

code=2 verdict="" blocks=true
if words=$(python3 -c '
import os, shlex, sys
try:
    print(shlex.join(shlex.split(os.environ.get("TAILGATE_ARGS", ""))))
except ValueError as error:
    sys.exit(f"TAILGATE_ARGS: {error}")'); then
  eval "arguments+=($words)"  # every word is quoted: nothing is run or expanded
  tailgate gate "${arguments[@]}"
  code=$?
fi

# Other codes come without a verdict; one that lies there would be of an earlier gate.
case "$code" in
0 | 1 | 3 | 4)
  read -r verdict blocks < <(python3 -c '
import json, sys
found = json.load(open(sys.argv[1]))
print(found["verdict"], str(found["blocks"]).lower())' "$TAILGATE_OUT/verdict.json")
  ;;
esac
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'verdict=%s\nexit-code=%s\nblocks=%s\n' "$verdict" "$code" "$blocks" >> "$GITHUB_OUTPUT"
fi
[ "$code" = 3 ] && [ "$blocks" = false ] && exit 0
exit "$code"
