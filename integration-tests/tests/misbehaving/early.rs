//! Plugins that misbehave before they are components: libraries that do when they are looked at, and instances that hang
//! when they are made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::shop::{Shop, ended_somehow};
use super::side_by_side;

/// What a library does, and where: see `misbehaving/src/beside.rs`.
const ACTS: [(&str, &str); 14] = [
    ("sigsegv", "load"),
    ("abort", "manifest"),
    ("stack_overflow", "entry"),
    ("exit", "load"),
    ("exit_nonzero", "manifest"),
    ("panic", "entry"),
    ("hang", "load"),
    ("allocate", "manifest"),
    ("close_socket", "entry"),
    ("garbage_socket", "load"),
    ("oversized_message", "manifest"),
    ("leak_fds", "entry"),
    ("terminate_parent", "load"),
    ("fork_bomb_small", "manifest"),
];

#[test]
fn a_library_that_misbehaves_when_it_is_looked_at_costs_its_components_and_is_remembered() {
    let told = side_by_side(ACTS.to_vec(), |(name, place)| looked_at(name, place)).concat();
    insta::assert_snapshot!("early", told);
}

/// A run with a library of its own, which does this; what was said of it.
fn looked_at(name: &str, place: &str) -> String {
    // In the folder of the build, where libraries need not be copied.
    let libraries = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let built = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    for kind in ["source", "channel"] {
        let file = format!("libreunion_{kind}_misbehaving.so");
        link_or_copy(&built.join(&file), &libraries.path().join(&file));
    }
    fs::write(libraries.path().join("misbehave"), format!("{name} {place}\n")).unwrap();

    let mut shop = Shop::new();
    shop.source("bad", &BTreeMap::new(), "");
    shop.channel("ill", &BTreeMap::new(), "");
    shop.write_config();
    let path = [libraries.path(), built.as_path()];
    fs::write(shop.retailer.path("conf.d/plugins.toml"), format!("[plugins]\npath = {path:?}\n")).unwrap();

    let (code, report) = shop.once();
    shop.good_ones_worked(&report);
    let failed = report["sources"]["bad"]["failed"].as_str();
    let has_crashed = failed.is_some_and(|why| why.contains("crashed when it was looked at"));
    assert_eq!(failed.is_some(), has_crashed, "{name} at {place}: {report:#}");
    if has_crashed {
        assert!(code == 4 && report["notes"].to_string().contains("channel ill: "), "{name} at {place}: {report:#}");
    }

    // It is not looked at again by itself, though it would go well now: only when somebody says so.
    fs::remove_file(libraries.path().join("misbehave")).unwrap();
    let status = shop.run(&["status", "--format", "json"]).exits(0).stdout;
    assert_eq!(status.matches("crashed when it was looked at").count(), if has_crashed { 2 } else { 0 }, "{name} at {place}: {status}");
    shop.run(&["plugins", "ls", "--rescan"]).exits(0);
    shop.drain(20);
    let (code, report) = shop.once();
    assert_eq!(code, 0, "{name} at {place}: {report:#}");
    let why = failed.unwrap_or("read").replace(&libraries.path().display().to_string(), "");
    let why = why.split("; it is not looked at again").next().unwrap();
    // What it writes to all of its sockets is its last line too.
    let is_noise = matches!(name, "garbage_socket" | "oversized_message");
    let why = if is_noise { why.split(" (").next().unwrap() } else { why };
    let why = if name == "close_socket" { ended_somehow(why) } else { why.to_owned() };
    format!("{place:8} {name:20} {why}\n")
}

fn link_or_copy(from: &Path, to: &Path) {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).unwrap();
    }
}

/// Half a minute each: creating does nothing that takes long, so there is nothing to set.
#[test]
fn a_plugin_that_hangs_when_it_is_made_is_given_up() {
    let hang = |at: &str| format!("do = \"hang\"\nat = \"{at}\"\nonce_file = \"once/hang\"\n");
    side_by_side(vec![("source", "create"), ("channel", "create"), ("channel", "describe")], |(kind, at)| {
        let mut shop = Shop::new();
        match kind {
            "source" => shop.source("hangs", &BTreeMap::new(), &hang(at)),
            _ => shop.channel("hangs", &BTreeMap::new(), &hang(at)),
        }
        shop.drain(20);
        let (code, report) = shop.once();
        assert_eq!(code, 4, "{kind} at {at}: {report:#}");
        shop.good_ones_worked(&report);
        assert!(report.to_string().contains("was not ready within 30 seconds"), "{report:#}");
        let state = &shop.states()[&format!("{kind}s.hangs")];
        assert!(state.sentence.starts_with("failed: was not ready within 30 seconds, restarts 1/5"), "{state:?}");
        assert_eq!(shop.once().0, 0, "{kind} at {at}");
    });
}
