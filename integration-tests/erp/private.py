"""Private servers: on a free port or a socket, data in a temporary folder, gone when the tests are."""

import os
import pwd
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

START_SECS_MAX = 60
INSTALL = "the tests need PostgreSQL's server programs: apt-get install postgresql"
# The server lives as long as the shell's standard input, which closes with this process, however that ends.
KEEP = """log="$1"; signal="$2"; leave="$3"; shift 3; "$@" >"$log" 2>&1 &
    server=$!; read -r _; kill "-$signal" $server; wait $server; rm -rf "$leave\""""


def keep(command, log, signal, leave="", env=None, **options):
    """Starts a server that ends with this process, and with it the folder `leave`; the shell that keeps it."""
    command = ["/bin/sh", "-c", KEEP, "sh", log, signal, leave, *command]
    environment = os.environ | (env or {})
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/", **options)


def end(keeper):
    """Ends a server that `keep` started."""
    keeper.communicate(timeout=START_SECS_MAX)


def wait_until(answers, log):
    """Waits until a server answers."""
    give_up = time.monotonic() + START_SECS_MAX
    while not answers():
        assert time.monotonic() < give_up, f"the server does not start:\n{log.read_text()}"
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    """A PostgreSQL server, reached by a socket in its folder."""

    def __init__(self):
        self.programs = find_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="reunion-erp-"))
        # PostgreSQL refuses to run as root.
        owner = unprivileged() if os.getuid() == 0 else None
        options = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if owner else {}
        if owner:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        # What libpq takes where a URL says nothing.
        self.environment = {"PGHOST": str(self.folder), "PGUSER": "postgres"}
        log = self.folder / "log"
        initdb = "initdb --username=postgres --auth=trust --no-sync --locale=C --encoding=UTF8 --pgdata".split()
        self.run(*initdb, self.folder / "data", cwd=self.folder, **options)
        flags = ["-D", self.folder / "data", "-k", self.folder, "-h", "", "-c", "fsync=off"]
        self.keeper = keep([self.programs / "postgres", *flags], log, "INT", self.folder, **options)
        wait_until(lambda: self.run("pg_isready", check=False).returncode == 0, log)

    def run(self, program, *arguments, check=True, **options):
        """Runs one of PostgreSQL's programs to its end."""
        command = [self.programs / program, *arguments]
        environment = os.environ | self.environment
        done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
        assert not check or done.returncode == 0, f"{program}: {done.stderr}"
        return done

    def connect(self, database):
        """A connection of its own to a database."""
        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)

    def url(self, user, database):
        """The URL of a database for one of its users."""
        return f"postgres://{user}@localhost/{database}?host={str(self.folder).replace('/', '%2F')}"

    def end(self):
        end(self.keeper)


def find_programs():
    """The folder with `initdb`: Debian's newest version, or wherever the path has it."""
    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    by_path = [Path(folder) for folder in os.get_exec_path() if (Path(folder) / "initdb").exists()]
    found = sorted(debian, key=lambda folder: int(folder.parent.name))[-1:] + by_path
    assert found, INSTALL
    return found[0]


def unprivileged():
    """Whom to run PostgreSQL as where we are root."""
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]
