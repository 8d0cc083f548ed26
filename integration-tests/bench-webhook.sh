#!/usr/bin/env bash
# Tasks a second to a receiver on this machine: 20,000 tasks by `once`, in requests of a hundred and of one, and beside it,
# where there is Python, a loop that posts as many requests of the same size and keeps nothing of them.
# The receiver takes each task once and writes its id to a file.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
release=${CARGO_TARGET_DIR:-$root/target}/release
tasks=${BENCH_TASKS:-20000}
work=$(mktemp -d)
receiver=
trap 'kill "$receiver" 2>/dev/null || true; rm -rf "$work"' EXIT
umask 077
cd "$work"

echo "record_id,phone,name,store,last_order_at" >members.csv
seq 1 "$tasks" | awk '{ printf "C%d,139%08d,王,S%d,2024-01-02T03:04:05Z\n", $1, 12000000 + $1, $1 % 40 }' >>members.csv
"$release/reunion" key new >key

config() {
    cat <<TOML
timezone = "Asia/Shanghai"
[state]
dir = "state.$1.$2"
key = { file = "key" }
[sources.pos]
plugin = "file"
mode = "snapshot"
with = { path = "members.csv", settle_secs = 0 }
[campaigns.all]
audience = "phone_only"
channel = "crm"
holdout = 0.0
per_run_max = 1000000
per_store_per_day_max = 1000000
message = "{{ name }}您好,我是{{ store }}店的导购。"
[channels.crm]
plugin = "webhook"
with = { url = "$url", idempotent = true, batch_tasks_max = $1 }
[pipelines.daily]
sources = ["pos"]
campaigns = ["all"]
TOML
}

# start: the receiver, with nothing taken.
start() {
    kill "$receiver" 2>/dev/null || true
    rm -f journal url
    "$release/faulty_receiver" --journal journal --idempotent >url &
    receiver=$!
    until [ -s url ]; do sleep 0.05; done
    url=$(cat url)
}

loop() {
    python3 - "$url" "$tasks" "$1" <<'PYTHON'
import http.client, json, sys, time
from urllib.parse import urlparse
url, tasks, batch = urlparse(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
connection = http.client.HTTPConnection(url.hostname, url.port)
began = time.perf_counter()
for at in range(0, tasks, batch):
    rows = [{"task_id": f"{row:032x}", "campaign": "all", "store": "S1", "staff": None, "name": "王", "phone": "13912000001", "reason": None,
             "message": "王您好,我是S1店的导购。", "due": None} for row in range(at, min(at + batch, tasks))]
    connection.request("POST", url.path, json.dumps({"type": "tasks", "data": {"tasks": rows}}), {"content-type": "application/json"})
    connection.getresponse().read()
print(f"{time.perf_counter() - began:.2f}")
PYTHON
}

for batch in 100 1; do
    for time in $(seq "${BENCH_TIMES:-3}"); do
        start
        config "$batch" "$time" >reunion.toml
        "$release/reunion" --config reunion.toml --format json once >report.json 2>log || { cat log report.json >&2; exit 1; }
        seconds=$(tr -d ' \n"' <report.json | sed -n 's/.*stage_secs:{\([^}]*\)}.*/\1/p' | tr ',' '\n' | sed -n 's/^dispatch://p')
        beside=-
        if command -v python3 >/dev/null; then
            start
            beside=$(loop "$batch")
        fi
        awk "BEGIN { printf \"%d a request: %d tasks in %.2f s, %d a second; the loop %s s\", $batch, $tasks, $seconds, $tasks / $seconds, \"$beside\"; print (\"$beside\" == \"-\" ? \"\" : sprintf(\", %.2f of it\", $seconds / ($beside + 0))) }"
    done
done
