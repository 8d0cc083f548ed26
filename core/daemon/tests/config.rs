//! Every fixture in `testdata/config`: a good one loads, and a bad one says what is asserted in
//! `snapshots/`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use reunion_daemon::config::Config;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config")
}

/// The configs that end so: `<name>.bad.toml`, or `<name>.bad/reunion.toml` where there is a `conf.d`.
fn fixtures(ending: &str) -> Vec<(String, PathBuf)> {
    let listing = fs::read_dir(folder()).expect("the folder of fixtures");
    let mut found = Vec::new();
    for item in listing {
        let path = item.expect("a fixture").path();
        let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        if let Some(name) = name.strip_suffix(&format!(".{ending}.toml")) {
            found.push((name.to_owned(), path));
        } else if let Some(name) = name.strip_suffix(&format!(".{ending}")) {
            found.push((name.to_owned(), path.join("reunion.toml")));
        }
    }
    found.sort();
    found
}

/// What is said of a config, with the folder of the fixtures left out.
fn said(path: &Path) -> Option<String> {
    let findings = match Config::load(path) {
        Ok(config) => Some(config.warnings().clone()).filter(|warnings| !warnings.is_empty())?,
        Err(findings) => findings,
    };
    Some(findings.render(false).replace(&format!("{}/", folder().display()), ""))
}

#[test]
fn good_configs_load() {
    for (name, path) in fixtures("good") {
        let config = Config::load(&path).unwrap_or_else(|findings| panic!("{name}:\n{findings}"));
        assert!(config.warnings().is_empty(), "{name}:\n{}", config.warnings());
    }
}
