#!/usr/bin/env bash
# The action's comment on a pull request: one for each policy, replaced at each run.
#
#   MARKER         the comment's hidden first line; it names the policy
#   PULL           number of the pull request; GH_REPO and GH_TOKEN are those of `gh`
#   TAILGATE_OUT   folder with gate.md
#   VERDICT        empty where there is none
#
# It never decides whether the check fails: without the right to comment (a fork's token only reads) it warns.
set -uo pipefail

[ -n "$VERDICT" ] || exit 0
body="$TAILGATE_OUT/comment.md"
{ printf '%s\n\n' "$MARKER"; cat "$TAILGATE_OUT/gate.md"; } > "$body" || exit 0

# Anyone can write our first line. What the action's token wrote before has this author, and only that is replaced.
author='github-actions[bot]'
old=""
lines='.[] | "\(.id) \(.user.login) \(.body | split("\n")[0] | rtrimstr("\r"))"'
found=$(gh api --paginate "repos/$GH_REPO/issues/$PULL/comments" --jq "$lines" 2> "$body.error")
listed=$?
while read -r id login first; do
  [ "$login" = "$author" ] && [ "$first" = "$MARKER" ] && old="$id" && break
done <<< "$found"

if [ "$listed" != 0 ]; then
  false
elif [ -n "$old" ]; then
  gh api --method PATCH "repos/$GH_REPO/issues/comments/$old" --field "body=@$body" --silent 2> "$body.error"
else
  gh pr comment "$PULL" --body-file "$body" 2> "$body.error"
fi || printf '::warning::%s\n' "The gate's comment could not be written: $(tr '\n\r' '  ' < "$body.error" | head -c 300). \
The verdict is in the job's summary. A comment needs the permission pull-requests: write, which forks do not get."
rm -f "$body.error"
exit 0
