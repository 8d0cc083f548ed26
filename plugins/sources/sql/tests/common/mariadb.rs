//! A private MariaDB server for tests: its data in a temporary folder, reached by a socket in it, gone when
//! the test process is. Its clock shows the time of Shanghai.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

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
    SERVER.get_or_init(Server::start)
}

impl Server {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("reunion-mariadb-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a temporary folder");
        let user = Command::new("id").arg("-un").output().expect("id is there").stdout;
        let user = format!("--user={}", String::from_utf8_lossy(&user).trim());
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &user]);
        let made = install.arg(format!("--datadir={}", folder.join("data").display())).output().expect(INSTALL);
        assert!(made.status.success(), "mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr));

        // The shell lives as long as its standard input, ends the server, and clears up.
        let script = r#""$1" --no-defaults "$3" --datadir="$2/data" --socket="$2/socket" --pid-file="$2/pid" --skip-networking \
            --default-time-zone=+08:00 --innodb-flush-log-at-trx-commit=0 >"$2/log" 2>&1 &
            server=$!; read -r _; kill -TERM $server; wait $server; rm -rf "$2""#;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).arg(program()).arg(&folder).arg(&user);
        shell.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { folder, _keeper: shell.spawn().expect("a shell") };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !self.client("select 1", None).status.success() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn client(&self, sql: &str, database: Option<&str>) -> Output {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--default-character-set=utf8mb4", "--user=root"]);
        client.arg(format!("--socket={}", self.folder.join("socket").display())).args(database);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect(INSTALL);
        // One that cannot connect does not read it.
        let _ = client.stdin.take().expect("a pipe").write_all(sql.as_bytes());
        client.wait_with_output().expect("the client ends")
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
