//! What private servers of tests have in common: a temporary folder, and an end with the test process.
//!
//! Standard library only, as the files that take this one.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A port of this machine by which a server is reached, besides its socket.
pub struct Port {
    pub number: u16,
    /// A certificate and its key, as PEM: with them the server offers TLS.
    pub certificate: Option<[String; 2]>,
}

#[allow(dead_code, reason = "not every test that takes this file needs it")]
impl Port {
    /// One that nobody has now.
    pub fn free(certificate: Option<[String; 2]>) -> Self {
        let found = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        Self { number: found.expect("a free port").port(), certificate }
    }
}

/// A new folder of this test process.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("reunion-{name}-{}-{count}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a temporary folder");
    folder
}

/// Writes a file that nobody else may read: servers take no other for a key.
pub fn write_secret(path: &Path, text: &str) {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the folder is this process's");
}

/// Runs a server by `shell`, which lives as long as its standard input: then it ends the server by this signal,
/// and removes the folder. The pipe closes with this process, however that ends.
pub fn keep(mut shell: Command, folder: &Path, signal: &str, program: &Path, args: &[String]) -> Child {
    let script = r#"folder="$1"; signal="$2"; shift 2; "$@" >"$folder/log" 2>&1 &
        server=$!; read -r _; kill "-$signal" $server; wait $server; rm -rf "$folder""#;
    shell.args(["-c", script, "sh"]).arg(folder).arg(signal).arg(program).args(args);
    shell.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().expect("a shell")
}

/// Waits until a server that [`keep`] runs answers.
pub fn wait_until(answers: impl Fn() -> bool, folder: &Path) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !answers() {
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < give_up, "the server does not start: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Gives statements to a client's standard input.
pub fn feed(mut client: Command, sql: &str) -> Output {
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the client is there");
    // One that cannot connect does not read it.
    let _ = client.stdin.take().expect("a pipe").write_all(sql.as_bytes());
    client.wait_with_output().expect("the client ends")
}
