//! A plugin in plain C: one that keeps the contract works, and each that breaks it is refused with the
//! rule, the host unharmed.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use reunion_host::{CallOptions, LoadError, Plugin, Plugins, SourceConnector};
use reunion_model::plugin::{ErrorClass, Finding, Item, PluginError, PluginKind, ReadMode, ReadRequest};
use serde_json::json;
use tempfile::TempDir;

const REQUEST: ReadRequest = ReadRequest::new(ReadMode::Snapshot);

/// Compiles the plugin with these definitions into a folder of its own.
fn compile(definitions: &[&str]) -> TempDir {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"])
        .arg(folder.path().join("libreunion_source_plain.so"))
        .args(definitions.iter().map(|definition| format!("-D{definition}")))
        .arg("-I")
        .arg(here.join("../abi/include"))
        .arg(here.join("tests/plugin.c"))
        .output()
        .unwrap_or_else(|error| panic!("gcc is needed for this test: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn find(folder: &TempDir) -> Result<Plugin, LoadError> {
    Plugins::new(vec![folder.path().into()]).find(PluginKind::Source, "plain")
}

fn component(definitions: &[&str]) -> Box<dyn SourceConnector> {
    find(&compile(definitions)).unwrap().source("test", &json!({})).unwrap()
}

fn read(source: &dyn SourceConnector) -> Result<Vec<Item>, PluginError> {
    let mut stream = source.read(&CallOptions::default(), &REQUEST, None)?;
    let mut items = Vec::new();
    while let Some(item) = stream.next()? {
        items.push(item);
    }
    Ok(items)
}

/// The error and what it comes from, without the folder's name.
fn refusal(definitions: &[&str]) -> String {
    let folder = compile(definitions);
    let error = find(&folder).unwrap_err();
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    let canonical = folder.path().canonicalize().unwrap_or_else(|_| PathBuf::from(folder.path()));
    format!("{error}{source}").replace(canonical.to_str().unwrap(), "")
}

#[test]
fn a_plugin_in_plain_c_works_and_is_given_everything_back() {
    let source = component(&[]);
    drop(source.read(&CallOptions::default(), &REQUEST, None).unwrap());
    let items = read(source.as_ref()).unwrap();
    let [Item::Begin { resumed: false }, Item::Batch(batch), Item::State(state), Item::End { as_of_us: None }] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!((batch.num_rows(), state), (2, &json!({"row": 2})));
    assert_eq!(batch.schema(), source.schema(&CallOptions::default()).unwrap());
    drop(items);
    assert_eq!(source.check(&CallOptions::default()), Ok(vec![Finding::info("all given back")]));
    let canceller = source.canceller();
    canceller.cancel();
    assert_eq!(source.check(&CallOptions::default()).unwrap_err().class, ErrorClass::Cancelled);
}

#[test]
fn what_breaks_the_contract_is_refused_with_the_rule() {
    let mut lines = Vec::new();
    for rule in 1..=14 {
        let folder = compile(&[&format!("BREAK={rule}")]);
        let plugin = find(&folder).unwrap();
        let source = plugin.source("test", &json!({}));
        let error = source.as_ref().map_err(Clone::clone).and_then(|source| read(source.as_ref())).unwrap_err();
        if let Ok(source) = &source {
            let used = source.check(&CallOptions::default()).is_ok();
            assert_eq!(used, error.class != ErrorClass::Internal, "an internal error ends the component: {rule}");
        }
        lines.push(format!("{rule} {}", error.to_string().replace("the source plugin plain 0.3.1 broke the contract", "*")));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn plugins_that_cannot_be_used_are_refused_with_what_to_do() {
    let all = [
        refusal(&["MANIFEST_ABI=\"[2,0]\""]),
        refusal(&["MANIFEST_ABI=\"[1,7]\""]),
        refusal(&["MANIFEST_ABI=\"[0,9]\""]),
        refusal(&["MANIFEST_ABI=\"1\""]),
        refusal(&["MANIFEST_NAME=\"other\""]),
        refusal(&["BREAK=20"]),
        refusal(&["BREAK=21"]),
        refusal(&["BREAK=22"]),
        refusal(&["BREAK=23"]),
        refusal(&["BREAK=24"]),
        refusal(&["reunion_entry_v1=reunion_entry_v2"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
