#!/usr/bin/env bash
# Runs the demo: one pass over the exports beside this file. `make demo` builds what it needs first.
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

"$reunion" --config "$config" once --now 2026-09-21T22:30:00+08:00

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
  rm -r ${here#"$PWD"/}/state ${here#"$PWD"/}/out              start over
Or fill in the column "result" of a work list (added, refused, wrong_number, do_not_call), save it in
${here#"$PWD"/}/returned, and run the demo again.
TEXT
