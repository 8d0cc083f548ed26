#!/usr/bin/env python3
"""The consolidation of one bench folder by a tool that a user could pick instead.

    peers.py duckdb|polars FOLDER OUTPUT      prints seconds, members and peak memory in MB

Reads till.csv and shop.csv, normalises phones, drops rows without a usable one, makes one member per phone with
the newest name and store, sums and extremes, quintiles and three tags, and writes Parquet. It keeps no provenance, no
history, no lasting ids, no gates, no encryption and no state to go on from: it is the floor of the job.
"""
import resource
import sys
import time

TOOL, FOLDER, OUTPUT = sys.argv[1:4]
WIDE = "０１２３４５６７８９"
# The columns of both exports by one name: (till, shop).
COLUMNS = {
    "name": ("姓名", "name"), "phone": ("手机", "mobile"), "store": ("门店", "store"), "created_at": ("建卡时间", "created"),
    "updated_at": ("修改时间", "modified"), "last_order_at": ("最后消费", "last_order"), "order_count": ("消费次数", "orders"),
    "total_spent": ("消费金额", "spent"),
}


def duckdb_members():
    import duckdb
    connection = duckdb.connect()
    connection.execute("pragma threads=2")
    times = ("created_at", "updated_at", "last_order_at")
    types = {"phone": "varchar", "total_spent": "decimal(18,2)", **{name: "timestamp" for name in times}}

    def source(place, file):
        columns = ", ".join(f'cast("{names[place]}" as {types.get(name, "varchar")}) as {name}' for name, names in COLUMNS.items() if name != "order_count")
        return f"select {columns}, cast(\"{COLUMNS['order_count'][place]}\" as integer) as order_count from read_csv('{FOLDER}/{file}.csv', all_varchar=true, header=true)"

    connection.execute(f"""copy (
      with r as (select *, regexp_replace(translate(phone, '{WIDE}', '0123456789'), '[^0-9]', '', 'g') d from ({source(0, "till")} union all {source(1, "shop")})),
      n as (select *, case when length(d) = 13 and starts_with(d, '86') then substr(d, 3) when length(d) = 15 and starts_with(d, '0086') then substr(d, 5)
                           when length(d) = 12 and starts_with(d, '0') then substr(d, 2) when length(d) = 12 and ends_with(phone, '.0') then substr(d, 1, 11) else d end p from r),
      g as (select p, arg_max(name, updated_at) as name, arg_max(store, updated_at) as store, min(created_at) created_at, max(last_order_at) last_order_at,
                   sum(order_count) order_count, sum(total_spent) total_spent, count(*) records from n where regexp_full_match(p, '1[3-9][0-9]{{9}}') group by p),
      q as (select *, ntile(5) over (order by last_order_at) r, ntile(5) over (order by total_spent) m from g)
      select *, last_order_at < timestamp '2026-03-25' as dormant, r <= 2 and m >= 4 as win_back, total_spent >= 2000 as vip from q)
      to '{OUTPUT}' (format parquet, compression zstd)""")
    return connection.execute(f"select count(*) from '{OUTPUT}'").fetchone()[0]


def polars_members():
    import polars as pl
    times = ("created_at", "updated_at", "last_order_at")

    def source(place, file):
        names = {names[place]: name for name, names in COLUMNS.items()}
        text = {names[place]: pl.String for names in COLUMNS.values()}
        frame = pl.scan_csv(f"{FOLDER}/{file}.csv", schema_overrides=text).select(list(names)).rename(names)
        moment = [pl.col(name).str.strip_suffix("Z").str.replace("T", " ").str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False) for name in times]
        return frame.with_columns(*moment, pl.col("order_count").cast(pl.Int32, strict=False), pl.col("total_spent").cast(pl.Decimal(18, 2), strict=False))

    rows = pl.concat([source(0, "till"), source(1, "shop")])
    digits = pl.col("phone").str.replace_many(list(WIDE), list("0123456789")).str.replace_all("[^0-9]", "")
    rows = rows.with_columns(d=digits)
    d, size = pl.col("d"), pl.col("d").str.len_bytes()
    phone = (pl.when((size == 13) & d.str.starts_with("86")).then(d.str.slice(2)).when((size == 15) & d.str.starts_with("0086")).then(d.str.slice(4))
             .when((size == 12) & d.str.starts_with("0")).then(d.str.slice(1)).when((size == 12) & pl.col("phone").str.ends_with(".0")).then(d.str.slice(0, 11)).otherwise(d))
    members = (rows.with_columns(p=phone).filter(pl.col("p").str.contains("^1[3-9][0-9]{9}$")).group_by("p").agg(
        pl.col("name").sort_by("updated_at").last(), pl.col("store").sort_by("updated_at").last(), pl.col("created_at").min(),
        pl.col("last_order_at").max(), pl.col("order_count").sum(), pl.col("total_spent").sum(), records=pl.len()).collect(engine="streaming"))
    count = members.height
    tile = lambda column: (pl.col(column).rank("ordinal") - 1) * 5 // count + 1
    members = members.with_columns(r=tile("last_order_at"), m=tile("total_spent")).with_columns(
        dormant=pl.col("last_order_at") < pl.datetime(2026, 3, 25), win_back=(pl.col("r") <= 2) & (pl.col("m") >= 4), vip=pl.col("total_spent") >= 2000)
    members.write_parquet(OUTPUT)
    return count


started = time.time()
count = {"duckdb": duckdb_members, "polars": polars_members}[TOOL]()
print(f"{time.time() - started:.2f} {count} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}")
