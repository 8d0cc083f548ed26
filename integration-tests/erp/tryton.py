"""A Tryton on a private database."""

import hashlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import private

HERE = Path(__file__).resolve().parent
DATABASE = "tryton"
PASSWORD = "a clerk of the tests"
SETUP_SECS_MAX = 600
ANSWER_SECS_MAX = 60


class Tryton:
    """The server. Its empty database is made once and kept in `cache`, since that takes more than a minute."""

    def __init__(self, cache):
        self.postgres = private.Postgres()
        self.folder = self.postgres.folder
        port = private.free_port()
        config = self.folder / "trytond.conf"
        config.write_text(f"[database]\nuri = postgresql:///\n[web]\nlisten = 127.0.0.1:{port}\n")
        self.command = [Path(sys.executable).parent / "trytond", "-c", config, "-d", DATABASE]
        self.url = f"http://127.0.0.1:{port}/{DATABASE}/rpc/"
        self.postgres.run("createdb", DATABASE)
        dump = cache / f"tryton-{fingerprint(self.postgres)}.dump"
        if dump.exists():
            self.postgres.run("pg_restore", "--dbname", DATABASE, dump)
        else:
            self.install()
            for outdated in cache.glob("tryton-*"):
                outdated.unlink()
            part = dump.with_suffix(f".{os.getpid()}")
            self.postgres.run("pg_dump", "--format=custom", "--file", part, DATABASE)
            part.rename(dump)
        log = self.folder / "trytond.log"
        self.keeper = private.keep(self.command, log, "TERM", env=self.postgres.environment)
        private.wait_until(self.answers, log)

    def install(self):
        """Makes the tables of the modules that the example needs, and the user `admin`."""
        password = self.folder / "password"
        password.write_text(PASSWORD)
        environment = os.environ | self.postgres.environment | {"TRYTONPASSFILE": str(password)}
        admin, *arguments = self.command
        command = [admin.with_name("trytond-admin"), *arguments, "-u", "sale", "--activate-dependencies"]
        command += ["--email", "clerk@example.com", "--language", "en"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SETUP_SECS_MAX)
        assert done.returncode == 0, f"trytond-admin: {done.stderr}"

    def answers(self):
        try:
            # Any answer will do: it is there.
            urllib.request.urlopen(self.url, timeout=ANSWER_SECS_MAX).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def end(self):
        private.end(self.keeper)
        self.postgres.end()


def fingerprint(postgres):
    """What an empty database depends on: the packages, how it is made, and the server that wrote it."""
    files = [HERE / "requirements.txt", HERE / "tryton.py"]
    made_of = b"".join(path.read_bytes() for path in files) + postgres.run("postgres", "--version").stdout.encode()
    return hashlib.sha256(made_of).hexdigest()[:16]
