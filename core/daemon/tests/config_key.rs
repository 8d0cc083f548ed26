//! The master key, from each place that it may be in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reunion_daemon::config::{Config, Diagnostics};
use tempfile::TempDir;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A config whose key is in the file `reunion.key` beside it, with this text and mode.
fn config(text: &str, mode: u32) -> (TempDir, Config) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("reunion.key");
    fs::write(&key, text).expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("its mode");
    let path = folder.path().join("reunion.toml");
    fs::write(&path, "[state]\nkey = { file = \"reunion.key\" }\n").expect("a config");
    let config = Config::load(&path).expect("it loads");
    (folder, config)
}

fn said(folder: &Path, findings: &Diagnostics) -> String {
    findings.render(false).replace(&folder.display().to_string(), "…")
}

#[test]
fn a_private_file_gives_the_key() {
    let (_folder, config) = config(&format!("{KEY}\n"), 0o600);
    assert_eq!(*config.master_key().expect("a key").to_hex(), KEY);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (folder, config) = config(KEY, 0o640);
    let findings = config.master_key().err().expect("refused");
    insta::assert_snapshot!(said(folder.path(), &findings), @r#"
    error: others can read the master key …/reunion.key (mode 0640)
     --> …/reunion.toml:2:16
      |
    2 | key = { file = "reunion.key" }
      |                ^^^^^^^^^^^^^
      |
      = help: chmod 0600 …/reunion.key
    "#);
}

#[test]
fn a_text_that_is_no_key_is_not_repeated() {
    let (folder, config) = config("correct horse battery staple", 0o600);
    let findings = config.master_key().err().expect("refused");
    insta::assert_snapshot!(said(folder.path(), &findings), @r#"
    error: a master key is 64 hex digits, and this text has 28 characters
     --> …/reunion.toml:2:16
      |
    2 | key = { file = "reunion.key" }
      |                ^^^^^^^^^^^^^
      |
      = help: `reunion key new` makes one; keep the old one if the state was made with it
    "#);
}

#[test]
fn a_folder_is_no_key() {
    let (folder, config) = config(KEY, 0o600);
    let key = folder.path().join("reunion.key");
    fs::remove_file(&key).expect("gone");
    fs::create_dir(&key).expect("a folder in its place");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o700)).expect("its mode");
    let findings = config.master_key().err().expect("refused");
    insta::assert_snapshot!(said(folder.path(), &findings), @r#"
    error: the master key …/reunion.key cannot be read: Is a directory (os error 21)
     --> …/reunion.toml:2:16
      |
    2 | key = { file = "reunion.key" }
      |                ^^^^^^^^^^^^^
      |
      = help: let the user that Reunion runs as read it, and nobody else
    "#);
}
