//! A private MariaDB server for tests: its data in a temporary folder, reached by a socket in it, and by a port
//! where a test asks for one; gone when the test process is. Its clock shows the time of Shanghai.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::postgres::private;

const INSTALL: &str = "the tests need MariaDB's server programs: apt-get install mariadb-server-core mariadb-client-core";

/// A running server.
pub struct Server {
    folder: PathBuf,
    /// While the pipe to it is open the server runs; it closes with this process, however that ends.
    _keeper: Child,
}

/// The server of this test process, started when it is first asked for.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(None))
}

impl Server {
    /// One that a port leads to as well, where there is one.
    pub fn start(port: Option<&private::Port>) -> Self {
        let folder = private::folder("mariadb");
        let user = Command::new("id").arg("-un").output().expect("id is there").stdout;
        let user = format!("--user={}", String::from_utf8_lossy(&user).trim());
        // A server that starts removes the temporary tables that it finds, also those of others.
        let apart = |program: &str| {
            let mut command = Command::new(program);
            command.env("TMPDIR", &folder);
            command
        };
        let mut install = apart("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &user]);
        let made = install.arg(format!("--datadir={}", folder.join("data").display())).output().expect(INSTALL);
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));

        let path = |name: &str| folder.join(name).display().to_string();
        let [data, socket, pid] =
            [("datadir", "data"), ("socket", "socket"), ("pid-file", "pid")].map(|(key, name)| format!("--{key}={}", path(name)));
        let args = ["--no-defaults", &user, &data, &socket, &pid, "--default-time-zone=+08:00", "--innodb-flush-log-at-trx-commit=0"];
        let mut args = args.map(String::from).to_vec();
        match port {
            None => args.push("--skip-networking".into()),
            Some(port) => args.extend(["--bind-address=127.0.0.1".into(), format!("--port={}", port.number)]),
        }
        match port.and_then(|port| port.certificate.as_ref()) {
            // Newer ones make a certificate of their own.
            None => args.push("--skip-ssl".into()),
            Some(certificate) => {
                for (setting, pem) in ["ssl-cert", "ssl-key"].iter().zip(certificate) {
                    private::write_secret(&folder.join(setting), pem);
                    args.push(format!("--{setting}={}", path(setting)));
                }
            }
        }
        let keeper = private::keep(apart("/bin/sh"), &folder, "TERM", program(), &args);
        let server = Self { folder, _keeper: keeper };
        private::wait_until(|| server.client("select 1", None).status.success(), &server.folder);
        server
    }

    fn client(&self, sql: &str, database: Option<&str>) -> Output {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--default-character-set=utf8mb4", "--user=root"]);
        client.arg(format!("--socket={}", self.folder.join("socket").display())).args(database);
        private::feed(client, sql)
    }

    /// Runs statements in a database.
    pub fn execute(&self, database: &str, sql: &str) {
        let done = self.client(sql, Some(database));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// The name of a new, empty database, and its URL for this user.
    pub fn database(&self, user: &str) -> (String, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.execute("mysql", &format!("create database {name} character set utf8mb4"));
        let socket = self.folder.join("socket").display().to_string().replace('/', "%2F");
        let url = format!("mysql://{user}@localhost/{name}?socket={socket}");
        (name, url)
    }
}

/// Debian puts it where only root's path leads.
fn program() -> &'static Path {
    let debian = Path::new("/usr/sbin/mariadbd");
    if debian.exists() { debian } else { Path::new("mariadbd") }
}
