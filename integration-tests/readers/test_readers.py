"""What docs/operate/files.md says of reading the state with other programs is true: its own programs are run here, on a
state with rows that were changed, removed and written under two data keys."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("REUNION_TARGET", ROOT / "target"))
PAGE = ROOT / "docs" / "operate" / "files.md"
RUN_SECS_MAX = 180
ROWS = 400
CONFIG = """
timezone = "Asia/Shanghai"
[state]
dir = "state"
key = { file = "key" }
[testing]
clock = true
[plugins]
path = [%s]
[sources.pos]
plugin = "file"
max_age_hours = 8784
deleted_share_max = 1.0
[sources.pos.with]
path = "pos.csv"
settle_secs = 0
[tags.dormant]
when = "days_since_last_order > 180"
[campaigns.hello]
audience = "dormant"
channel = "lists"
[channels.lists]
plugin = "file"
with = { path = "out/{store}/{date}-{run}.csv" }
[pipelines.daily]
sources = ["pos"]
campaigns = ["hello"]
"""
HEADER = "record_id,phone,name,store,birthday,open_complaint,updated_at,last_order_at,order_count,total_spent\n"


def row(number, name):
    """A row of the export; every tenth has a number that nobody can use."""
    phone = f"1390012{number:04}" if number % 10 else "021-64331234"
    day = f"2025-{1 + number % 12:02}-{1 + number % 28:02}"
    return f"C{number},{phone},{name}{number},S{number % 5},1990-04-01,{'true' if number % 7 else ''},{day}T01:02:03Z,{day}T01:02:03Z,{number % 9},{number}.50\n"


class Readers(unittest.TestCase):
    """A state of several generations, and each of the page's programs on it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="reunion-readers-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        (cls.folder / "reunion.toml").write_text(CONFIG % json.dumps(str(TARGET / "debug")))
        cls.command = [TARGET / "debug" / "reunion", "--config", cls.folder / "reunion.toml"]
        cls.reunion("key", "new", "--output", cls.folder / "key")
        # All, some anew and some gone, and under another key some anew and some more.
        cls.export(row(at, "甲") for at in range(ROWS))
        cls.export(row(at, "乙" if at % 50 == 3 else "甲") for at in range(ROWS) if at % 40 != 5)
        cls.reunion("key", "rotate")
        cls.export(row(at, "丙" if at % 60 == 4 else "乙" if at % 50 == 3 else "甲") for at in range(ROWS + 9) if at % 40 != 5)
        # Records that stand twice in a pull, of which the earlier row counts as never written.
        cls.export([row(at, "丁") for at in range(3)] + [row(at, "戊" if at < 3 else "甲") for at in range(ROWS + 9) if at % 40 != 5])

    @classmethod
    def reunion(cls, *arguments):
        done = subprocess.run([*cls.command, *arguments], capture_output=True, text=True, timeout=RUN_SECS_MAX)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @classmethod
    def export(cls, rows):
        (cls.folder / "pos.csv").write_text(HEADER + "".join(rows))
        cls.reunion("once", "--now", "2026-09-21T22:30:00+08:00")

    def query(self, columns, rest):
        """The rows that `query` answers with; each column has its own name in the result."""
        names = [column.split(" as ")[-1] for column in columns]
        answered = json.loads(self.reunion("query", f"select {', '.join(columns)} from {rest}", "--format", "json"))
        return [tuple(row.get(name) for name in names) for row in answered]

    def program(self, library):
        """What the page's program with this library leaves behind."""
        blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        found = [block for block in blocks if f"import {library}" in block]
        self.assertEqual(len(found), 1, f"programs with {library} in {PAGE}")
        program = found[0].replace('["reunionctl", ', "[*REUNION, ")
        self.assertNotIn("reunionctl", program)
        names = {"REUNION": self.command}
        exec(compile(program, f"{PAGE.name}: {library}", "exec"), names)
        return names

    def test_several_files_and_keys_are_needed(self):
        manifest = json.loads(Path(json.loads(self.reunion("verify", "--format", "json"))["manifest"]).read_text())
        files = [file for table in manifest["tables"].values() for file in table["files"]]
        self.assertEqual({file["data_key"] for file in files}, {1, 2})
        self.assertEqual({file["kind"] for file in files}, {"rows", "removals"})
        self.assertTrue(any(file.get("dropped") for file in files), files)

    def test_duckdb(self):
        database = self.program("duckdb")["database"]
        members = """select lower(hex(member_id)), cast(phone as text), name, store, order_count, cast(total_spent as text), open_complaint
            from members order by 1"""
        columns = ["member_id", "phone", "name", "store", "order_count", "arrow_cast(total_spent, 'Utf8') as spent", "open_complaint"]
        self.assertEqual(database.sql(members).fetchall(), self.query(columns, "members order by 1"))
        records = """select r.record_id, lower(hex(a.member_id)), a.reason
            from "records/pos" r join assignments a using (record_key) order by 1"""
        self.assertEqual(database.sql(records).fetchall(), self.query(["record_id", "member_id", "reason"], "records order by 1"))
        tags = "select lower(hex(member_id)) from tags where tag = 'dormant' order by 1"
        self.assertEqual(database.sql(tags).fetchall(), self.query(["member_id"], "members where dormant order by 1"))

    def test_polars(self):
        import polars as pl

        table = self.program("polars")["table"]
        member_id = pl.col("member_id").bin.encode("hex")
        columns = [member_id, pl.col("phone").cast(pl.String), "name", "order_count", pl.col("total_spent").cast(pl.String)]
        expected = self.query(["member_id", "phone", "name", "order_count", "arrow_cast(total_spent, 'Utf8') as spent"], "members order by 1")
        self.assertEqual(table("members").select(columns).sort("member_id").rows(), expected)
        records = table("records/pos").join(table("assignments"), on="record_key").select("record_id", member_id, "reason_right")
        self.assertEqual(records.sort("record_id").rows(), self.query(["record_id", "member_id", "reason"], "records order by 1"))

    def test_pyarrow(self):
        names = self.program("pyarrow")
        self.assertEqual(names["rows"], names["file"]["rows"])


if __name__ == "__main__":
    unittest.main()
