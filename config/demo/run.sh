#!/usr/bin/env bash
# Runs the demo: one pass over the files beside this one. `make demo` builds what it needs first.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
reunion=$target/debug/reunion
config=$here/reunion.toml

mkdir -p "$here/returned"
if [ ! -e "$here/state.key" ]; then
    (umask 077 && "$reunion" key new >"$here/state.key")
fi

if [ ! -e "$here/webhook.secret" ]; then
    (umask 077 && echo "whsec_$(head -c 32 /dev/urandom | base64)" >"$here/webhook.secret")
fi

# The head office: it prints what it is given, and remembers it.
received=$(mktemp)
WEBHOOK_SECRET=$(cat "$here/webhook.secret") \
    "$target/debug/examples/receiver" 127.0.0.1:18473 "$here/received.db" >"$received" &
receiver=$!
trap 'kill "$receiver" 2>/dev/null || true; rm -f "$received"' EXIT
until grep -q http "$received"; do
    kill -0 "$receiver" 2>/dev/null || { echo "the demo's receiver could not listen on 127.0.0.1:18473" >&2; exit 1; }
    sleep 0.1
done

"$reunion" --config "$config" once --now 2026-09-21T22:30:00+08:00

if grep -q scent-week "$received"; then
    echo
    echo "The head office got $(grep -c scent-week "$received") tasks by HTTP, such as"
    grep scent-week "$received" | head -2 | sed 's/^/  /'
fi

lists=$(find "$here/out" -name '*.csv' | sort)
echo
echo "Work lists: $(echo "$lists" | wc -l) files under ${here#"$PWD"/}/out, such as"
echo "$lists" | head -3 | sed "s|^$PWD/|  |"
cat <<TEXT

What to try next:
  make demo                                          again: nothing is sent twice
  alias reunion="$reunion --config $config"
  reunion explain 17674578175                        what is known of one phone, and why
  reunion explain 13900001207                        the number of a cashier, on too many cards
  reunion query "select source, reason, count(*) from quarantine group by 1, 2 order by 3 desc"
  reunion tasks ls --state accepted                  the tasks that were handed out
  reunion suppress add 17674578175 --reason asked    never contact this phone again
  (cd ${here#"$PWD"/} && rm -r state out received.db*)      start over
Or fill in the column "result" of a work list (added, refused, wrong_number, do_not_call), save it in
${here#"$PWD"/}/returned, and run the demo again.
TEXT
