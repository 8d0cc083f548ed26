//! A private PostgreSQL server for tests: its data in a temporary folder, reached by a socket in it, and by a port where
//! a test asks for one; gone when the test process is.
//!
//! Standard library only, so that other test crates can take this file as it is.

#[path = "private.rs"]
pub mod private;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const INSTALL: &str = "the tests need PostgreSQL's server programs: apt-get install postgresql (or put initdb and postgres on the path)";

/// A running server.
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// Its socket's name has it too.
    port: u16,
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
        let programs = find_programs().expect(INSTALL);
        let folder = private::folder("postgres");
        let owner = unprivileged();
        if let Some((uid, gid)) = owner {
            chown(&folder, Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let data = folder.join("data");
        let mut initdb = as_owner(&programs.join("initdb"), owner);
        initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "--pgdata"]).arg(&data);
        let made = initdb.current_dir(&folder).output().expect(INSTALL);
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let (data, socket) = (data.display().to_string(), folder.display().to_string());
        let (address, number) = port.map_or(("", 5432), |port| ("127.0.0.1", port.number));
        let args = ["-D", &data, "-k", &socket, "-h", address, "-p", &number.to_string(), "-c", "fsync=off", "-c", "max_connections=200"];
        let mut args = args.map(String::from).to_vec();
        if let Some(certificate) = port.and_then(|port| port.certificate.as_ref()) {
            args.extend(["-c", "ssl=on"].map(String::from));
            for (setting, pem) in ["ssl_cert_file", "ssl_key_file"].iter().zip(certificate) {
                let path = folder.join(setting);
                private::write_secret(&path, pem);
                chown(&path, owner.map(|(uid, _)| uid), owner.map(|(_, gid)| gid)).expect("root may give a file away");
                args.extend(["-c".to_owned(), format!("{setting}={}", path.display())]);
            }
        }
        let keeper = private::keep(as_owner(Path::new("/bin/sh"), owner), &folder, "INT", &programs.join("postgres"), &args);
        let server = Self { folder, programs, port: number, _keeper: keeper };
        private::wait_until(|| server.client("pg_isready").output().expect("pg_isready is there").status.success(), &server.folder);
        server
    }

    fn client(&self, program: &str) -> Command {
        let mut client = Command::new(self.programs.join(program));
        client.arg("-h").arg(&self.folder).args(["-p", &self.port.to_string(), "-U", "postgres"]);
        client
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let made = self.client("createdb").arg(&name).output().expect("createdb is there");
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        let socket = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@localhost/{name}?host={socket}")
    }

    /// Runs statements in the database of this URL.
    #[allow(dead_code, reason = "not every test that takes this file needs it")]
    pub fn execute(&self, url: &str, sql: &str) {
        let name = url.split(['/', '?']).nth(3).expect("a URL as `database` gives it");
        let mut psql = self.client("psql");
        psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-f", "-", name]);
        let done = private::feed(psql, sql);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The folder with `initdb`: Debian's newest version, or wherever the path has it.
fn find_programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").exists())
        .collect();
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    versions.pop().map(|(_, folder)| folder).or_else(on_path)
}

/// PostgreSQL refuses to run as root: whom to run it as then, user and group.
fn unprivileged() -> Option<(u32, u32)> {
    let me = fs::metadata("/proc/self").expect("Linux").uid();
    let entry = |name: &str| {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let fields: Vec<String> = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').map(String::from).collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    (me == 0).then(|| entry("postgres").or_else(|| entry("nobody")).expect("a user named postgres or nobody"))
}

fn as_owner(program: &Path, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}
