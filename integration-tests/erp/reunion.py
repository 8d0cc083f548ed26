"""The real binary on one of config/examples, in a folder of its own."""

import datetime
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("REUNION_TARGET", ROOT / "target"))
EXAMPLES = ROOT / "config" / "examples"
RUN_SECS_MAX = 180
PASSWORD = "of the tests"
# Every phone of these tests, as people and ERPs write it.
PHONE = re.compile(r"139[ -]?012\d[ -]?\d{4}")


def grants(example):
    """The statements that the head of an example gives the database's administrator."""
    text = (EXAMPLES / example).read_text()
    return [statement.replace("…", PASSWORD) for statement in re.findall(r"^## {5}((?:create role|grant) .*;)$", text, re.MULTILINE)]


class Reunion:
    """An example with some of its lines replaced; `edits` has for each the line's beginning and the new line."""

    def __init__(self, example, edits):
        self.folder = Path(tempfile.mkdtemp(prefix="reunion-erp-"))
        config = (EXAMPLES / example).read_text().replace("/var/lib/reunion", str(self.folder))
        for beginning, line in edits.items():
            config, count = re.subn(f"^{re.escape(beginning)}.*$", line.replace("\\", r"\\"), config, flags=re.MULTILINE)
            assert count == 1, f"{example} has {count} lines that begin with {beginning!r}"
        # One clock for all runs, so that no sweep is due between two of them.
        self.now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        (self.folder / "reunion.toml").write_text(config + "\n[testing]\nclock = true\n")
        self.environment = os.environ | {"CREDENTIALS_DIRECTORY": str(self.folder)}
        password = self.folder / "erp.password"
        password.touch(mode=0o600)
        password.write_text(PASSWORD)
        self.run("key", "new", "--output", self.folder / "reunion.key")

    def run(self, *arguments):
        """Runs a command to its end. What it says may show no phone; only `query` does."""
        command = [TARGET / "debug" / "reunion", "--config", self.folder / "reunion.toml", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=RUN_SECS_MAX)
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"exit {done.returncode}\n{said}"
        assert arguments[0] == "query" or not PHONE.search(said), f"a phone is shown\n{said}"
        return done.stdout

    def once(self, *arguments):
        """One pull and all that follows from it; what it says of the source."""
        report = json.loads(self.run("once", "--format", "json", "--now", self.now, *arguments))
        erp = report["sources"]["erp"]
        parts = sum(erp[part] for part in ("new", "changed", "unchanged", "superseded"))
        assert erp["pulled"] == parts + sum(erp["quarantined"].values()), report
        return erp

    def query(self, sql):
        return json.loads(self.run("query", sql, "--format", "json"))

    def explain(self, phone):
        return json.loads(self.run("explain", phone, "--format", "json"))

    def end(self):
        shutil.rmtree(self.folder)
