#!/usr/bin/env bash
# Speed and memory of whole runs beside DuckDB and Polars on the same files, where Python has them.
# BENCH_ROWS="100000 1000000" chooses other sizes, BENCH_TIMES how often each run is made: the one in the middle
# is shown. The column with x is the time as a multiple of that of Polars.
#
# Each run has a folder of its own, and none is removed before the end: for minutes after many files were removed,
# ext4 takes several times as long to make new ones, which a shop's machine does not do. That takes about 20 GB
# under TMPDIR with all sizes.
#
# Before each run, of whatever tool, as much memory is touched as the largest takes. A virtual machine whose host
# takes back what is free gives each page anew, at many times the price of a page that the machine has: whoever ran
# first after a pause would pay for it.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
release=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 077
times=${BENCH_TIMES:-3}

config() {
    cat <<TOML
timezone = "Asia/Shanghai"
[state]
dir = "state"
key = { file = "key" }
[testing]
clock = true
[log]
level = "warn"
[sources.till]
plugin = "file"
mode = "snapshot"
max_age_hours = 8784
columns = { record_id = "卡号", name = "姓名", phone = "手机", store = "门店", staff = "导购", created_at = "建卡时间", updated_at = "修改时间", last_order_at = "最后消费", order_count = "消费次数", total_spent = "消费金额", sms_consent = "短信同意" }
with = { path = "in/till.csv", settle_secs = 0 }
[sources.shop]
plugin = "file"
mode = "snapshot"
max_age_hours = 8784
columns = { record_id = "id", phone = "mobile", created_at = "created", updated_at = "modified", last_order_at = "last_order", order_count = "orders", total_spent = "spent", sms_consent = "sms", sms_consent_at = "sms_at", sms_consent_evidence = "sms_proof" }
with = { path = "in/shop.csv", settle_secs = 0 }
[identity]
keys = ["phone", "unionid"]
[tags.dormant]
when = "last_order_at < now() - interval '180 days'"
[tags.win_back]
when = "rfm_r <= 2 and rfm_m >= 4"
[tags.vip]
when = "total_spent >= 2000"
[campaigns.warm-add]
audience = "phone_only and dormant and win_back and store is not null"
channel = "lists"
touches_max = 2
gap_days = 30
message = "{{ name }}您好,我是{{ store }}店的导购。"
[channels.lists]
plugin = "file"
with = { path = "out/{store}/{date}-{run}.csv" }
[pipelines.daily]
sources = ["till", "shop"]
campaigns = ["warm-add"]
TOML
}

# once NOW: seconds, peak MB, and seconds by stage.
once() {
    /usr/bin/time -f "%e %M" -o time "$release/reunion" --config reunion.toml --format json once --now "$1" >report.json 2>log ||
        { cat log report.json >&2; exit 1; }
    read -r seconds kilobytes <time
    stages=$(tr -d ' \n"' <report.json | sed -n 's/.*stage_secs:{\([^}]*\)}.*/\1/p' | tr ',' '\n' | awk -F: '{printf "%s %.2f  ", $1, $2}')
    echo "$seconds $((kilobytes / 1024)) $stages"
}

line() { printf '%-10s %-36s %7s s %6s x %6s MB  %s\n' "$@"; }

# Takes memory from the host; tail keeps a line without an end.
warm() { head -c "$(($1 * 700))" /dev/zero | tail >/dev/null; }

# Of several lines that begin with seconds, the one in the middle.
median() { sort -n | sed -n "$(((times + 1) / 2))p"; }

tools=
for tool in duckdb polars; do
    python3 -c "import $tool" 2>/dev/null && tools="$tools $tool"
done

for rows in ${BENCH_ROWS:-100000 1000000 5000000}; do
    folder=$work/$rows
    mkdir -p "$folder/in" "$folder/changed"
    cd "$folder"
    "$release/generate" in --rows "$rows" --stores 500 --utf8
    "$release/generate" changed --rows "$rows" --stores 500 --utf8 --changed 0.01
    config >reunion.toml
    "$release/reunion" key new >key
    before=$folder/start
    mkdir "$before"
    mv in reunion.toml key "$before"
    # peer TOOL: the same files by another tool.
    peer() {
        cd "$folder"
        warm "$rows"
        python3 "$root/integration-tests/peers.py" "$1" start/in "$1.parquet" >>"$1"
    }
    # run NAME CLOCK: from the state that the run before left.
    run() {
        place=$folder/$1.$time
        cp -a "$before" "$place"
        cd "$place"
        warm "$rows"
        once "$2" >>"$folder/$1.figures"
    }
    show() {
        read -r seconds megabytes stages < <(median <"$folder/$1.figures")
        ratio=$([ -z "$yardstick" ] && echo - || awk "BEGIN { printf \"%.1f\", $seconds / $yardstick }")
        line "$rows" "$2" "$seconds" "$ratio" "$megabytes" "$stages"
        before=$folder/$1.1
    }
    # By turns, since the speed of a machine that others share changes from one minute to the next.
    for time in $(seq "$times"); do
        for tool in $tools; do peer "$tool"; done
        run first 2026-09-21T22:30:00+08:00
    done
    yardstick=
    for tool in $tools; do
        read -r seconds members megabytes < <(median <"$folder/$tool")
        yardstick=$seconds
        line "$rows" "$tool" "$seconds" - "$megabytes" "$members members, nothing kept"
    done
    show first "first sync"
    for time in $(seq "$times"); do run same 2026-09-21T22:35:00+08:00; done
    show same "repeat, nothing changed"
    cd "$folder"
    cp changed/till.csv changed/shop.csv "$before/in/"
    for time in $(seq "$times"); do run changed 2026-09-22T22:30:00+08:00; done
    show changed "repeat, 1 % changed, a day further"
    cd "$root"
done
