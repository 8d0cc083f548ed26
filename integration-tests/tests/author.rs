//! What a plugin's author is given works: the examples of `docs/author`, the pages about them, and what `plugins new`
//! writes are built, pass their own tests and the conformance suite, and run in a host.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::array::{ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::util::display::array_value_to_string;
use reunion_host::{CallOptions, Plugin, Plugins, SourceConnector};
use reunion_integration_tests::harness::{binary, end};
use reunion_model::TaskId;
use reunion_model::plugin::{DispatchInfo, ErrorClass, Item, PluginError, PluginKind, ReadMode, ReadRequest};
use reunion_model::task::{Verdict, task_schema};
use serde_json::{Value, json};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn examples() -> PathBuf {
    root().join("docs/author/examples")
}

/// The files below a folder, by their paths in it. What was built there is left out.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut pending = vec![folder.to_path_buf()];
    let mut found = BTreeSet::new();
    while let Some(path) = pending.pop() {
        let built =
            path.extension().is_some_and(|extension| extension == "so") || ["target", "build"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !built {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !built && !path.ends_with("Cargo.lock") {
            found.insert(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
        }
    }
    found
}

/// A copy of a folder that the test may write to.
fn copy_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for path in files(folder) {
        let to = copy.path().join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(folder.join(&path), to).unwrap();
    }
    copy
}

/// Runs a command that must succeed; what it writes to standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} is needed for this test: {error}"));
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{command:?} failed\n{stdout}\n{stderr}");
    stdout
}

/// `make` in a folder, without what the make and the cargo around this test told.
fn make(folder: &Path, target: &str) -> String {
    let include = root().join("core/abi/include");
    let mut make = Command::new("make");
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env("REUNION_INCLUDE", include).arg("-C").arg(folder).arg(target);
    run(&mut make)
}

/// Where the plugins of this test are built: beside the workspace's own, as they have other features.
fn target() -> PathBuf {
    binary().parent().unwrap().parent().unwrap().join("author")
}

/// `cargo` in a folder that is a workspace of its own, with the versions that this workspace has and no network.
fn cargo(folder: &Path, arguments: &[&str]) -> String {
    // Two tests build the example in Rust, whose lock file lies in its own folder.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", target()).env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
    run(cargo.args(arguments))
}

/// Builds a plugin in Rust, after its tests; its library's folder.
fn build_rust(folder: &Path) -> PathBuf {
    cargo(folder, &["fmt", "--check"]);
    let tested = cargo(folder, &["test", "--offline"]);
    assert!(tested.lines().any(|line| line.starts_with("test ") && line.ends_with(" ... ok")), "it has no tests: {tested}");
    cargo(folder, &["build", "--offline"]);
    target().join("debug")
}

/// `plugins verify` of a library with the `verify.toml` that lies in a folder.
#[track_caller]
fn verify(library: &Path, folder: &Path) {
    let mut command = Command::new(binary());
    command.current_dir(folder).args(["plugins", "verify"]).arg(library).args(["--config", "verify.toml"]);
    let ended = end(command).exits(0);
    assert!(ended.stdout.contains(" passed, 0 failed, "), "{}", ended.stdout);
}

fn find(folder: &Path, kind: PluginKind, name: &str) -> Plugin {
    Plugins::new(vec![folder.to_owned()]).find(kind, name).unwrap()
}

/// All items of a read.
fn read(source: &dyn SourceConnector, state: Option<&Value>) -> Result<Vec<Item>, PluginError> {
    let request = ReadRequest { resume: state.is_some(), ..ReadRequest::new(ReadMode::Snapshot) };
    let mut stream = source.read(&CallOptions::default(), &request, state)?;
    let mut items = Vec::new();
    while let Some(item) = stream.next()? {
        items.push(item);
    }
    Ok(items)
}

fn lines_of(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
    let line = |row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join(",");
    (0..batch.num_rows()).map(line).collect()
}

/// The rows of these items as lines, or the rejected ones.
fn rows(items: &[Item], is_rejected: bool) -> Vec<String> {
    let batches = items.iter().filter_map(|item| match item {
        Item::Batch(batch) if !is_rejected => Some(batch),
        Item::Rejected(batch) if is_rejected => Some(batch),
        _ => None,
    });
    batches.flat_map(lines_of).collect()
}

/// At each of its states a read can be dropped, and goes on there: nothing is lost and nothing comes twice.
#[track_caller]
fn goes_on_at_each_state(make: &dyn Fn() -> Box<dyn SourceConnector>) {
    let whole = read(make().as_ref(), None).unwrap();
    assert_eq!(whole[0], Item::Begin { resumed: false });
    let states: Vec<usize> = (0..whole.len()).filter(|at| matches!(whole[*at], Item::State(_))).collect();
    assert!(states.len() > 2, "{} states", states.len());
    for at in states {
        let source = make();
        let request = ReadRequest::new(ReadMode::Snapshot);
        let mut stream = source.read(&CallOptions::default(), &request, None).unwrap();
        let before: Vec<Item> = (0..=at).map(|_| stream.next().unwrap().unwrap()).collect();
        drop(stream);
        drop(source);
        let Some(Item::State(state)) = before.last() else { panic!("a state was seen there before") };
        let rest = read(make().as_ref(), Some(state)).unwrap();
        assert_eq!(rest[0], Item::Begin { resumed: true });
        for is_rejected in [false, true] {
            assert_eq!([rows(&before, is_rejected), rows(&rest, is_rejected)].concat(), rows(&whole, is_rejected), "after {state}");
        }
    }
}

/// The plugin `lines` in C, built once for each test that needs it.
struct Lines {
    folder: TempDir,
}

impl Lines {
    fn new() -> Self {
        let folder = copy_of(&examples().join("c-lines"));
        make(folder.path(), "all");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("members.txt")
    }

    fn source(&self, batch_rows: usize) -> Box<dyn SourceConnector> {
        let config = json!({"path": self.path(), "line_bytes_max": 64, "batch_rows": batch_rows});
        find(self.folder.path(), PluginKind::Source, "lines").source("till", &config).unwrap()
    }
}

#[test]
fn the_example_in_c_builds_and_passes_its_own_tests_and_the_suite() {
    let lines = Lines::new();
    let tested = make(lines.folder.path(), "test");
    assert!(tested.contains("all tests passed"), "{tested}");
    verify(&lines.folder.path().join("libreunion_source_lines.so"), lines.folder.path());
    let manifest = find(lines.folder.path(), PluginKind::Source, "lines").manifest().clone();
    assert_eq!(manifest.sample, fs::read_to_string(lines.folder.path().join("sample.toml")).unwrap());
}

#[test]
fn the_example_in_c_reads_members_and_sets_lines_aside() {
    let lines = Lines::new();
    let long = "x".repeat(100_000);
    let text =
        [b"C1|13900001201|\xe5\xbc\xa0|S1|2026-01-02\r\n\nC2||||\nC3|1390\nC4|\xff|||\nC5|\0|||\n".as_slice(), long.as_bytes(), b"\nC6|13"]
            .concat();
    fs::write(lines.path(), text).unwrap();
    let items = read(lines.source(100).as_ref(), None).unwrap();
    assert_eq!(rows(&items, false), ["C1,13900001201,张,S1,2026-01-02", "C2,,,,"]);
    assert_eq!(
        rows(&items, true),
        [
            "members.txt:4,row_ragged,2 cells, and there should be 5",
            "members.txt:5,row_bad_encoding,the line is not UTF-8",
            "members.txt:6,row_nul,a zero byte",
            "members.txt:7,row_too_long,longer than line_bytes_max",
            "members.txt:8,row_truncated,2 cells, and there should be 5",
        ]
    );
    assert!(matches!(items.last(), Some(Item::End { as_of_us: Some(_) })));
    let names = ["record_id", "phone", "name", "store", "updated_at"];
    let schema = lines.source(100).schema(&CallOptions::default()).unwrap();
    assert_eq!(schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), names);
}

#[test]
fn the_example_in_c_goes_on_at_each_state_and_reads_another_file_anew() {
    let lines = Lines::new();
    let line = |row: usize| if row % 7 == 3 { "-\n".to_owned() } else { format!("C{row}|1390000{row:04}|x|S|\n") };
    let text: String = (0..100).map(line).collect();
    fs::write(lines.path(), &text).unwrap();
    goes_on_at_each_state(&|| lines.source(9));
    let items = read(lines.source(9).as_ref(), None).unwrap();
    let state = items.iter().find_map(|item| if let Item::State(state) = item { Some(state) } else { None }).unwrap();
    fs::write(lines.path(), format!("{text}C100||||\n")).unwrap();
    for state in [state, &json!({}), &json!([1, {"offset": "x"}])] {
        let items = read(lines.source(9).as_ref(), Some(state)).unwrap();
        assert_eq!((&items[0], rows(&items, false).len()), (&Item::Begin { resumed: false }, 87));
    }
}

#[test]
fn the_example_in_c_says_what_is_wrong_and_where() {
    let lines = Lines::new();
    let (source, options) = (lines.source(1), CallOptions::default());
    fs::write(lines.path(), "").unwrap();
    assert_eq!(source.check(&options).unwrap()[0].message, "the file is empty");
    fs::remove_file(lines.path()).unwrap();
    for error in [source.check(&options).unwrap_err(), read(source.as_ref(), None).unwrap_err()] {
        assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidData, Some("path")), "{error}");
        assert!(error.hint.is_some() && error.message.ends_with("members.txt is not there"), "{error}");
    }
    let plugin = find(lines.folder.path(), PluginKind::Source, "lines");
    let error = plugin.source("till", &json!({"path": "x\0y"})).err().unwrap();
    assert_eq!((error.class, error.key.as_deref()), (ErrorClass::InvalidConfig, Some("path")));
    let late = CallOptions { deadline_unix_ms: Some(1), ..CallOptions::default() };
    assert_eq!(source.check(&late).unwrap_err().class, ErrorClass::Timeout);
}

#[test]
fn the_example_in_c_is_cancelled_from_another_thread() {
    let lines = Lines::new();
    fs::write(lines.path(), "C1|13900001201|||\n".repeat(100)).unwrap();
    let source = lines.source(1);
    let canceller = source.canceller();
    let request = ReadRequest::new(ReadMode::Snapshot);
    let mut stream = source.read(&CallOptions::default(), &request, None).unwrap();
    let error = thread::scope(|scope| {
        assert!(stream.next().unwrap().is_some());
        scope.spawn(move || canceller.cancel()).join().unwrap();
        stream.next().unwrap_err()
    });
    assert_eq!(error.class, ErrorClass::Cancelled);
    drop(stream);
    assert_eq!(source.check(&CallOptions::default()).unwrap_err().class, ErrorClass::Cancelled);
}

#[test]
fn the_example_in_rust_builds_passes_the_suite_and_reads() {
    let folder = examples().join("rust-points");
    let libraries = build_rust(&folder);
    verify(&libraries.join("libreunion_source_points.so"), &folder);
    let plugin = find(&libraries, PluginKind::Source, "points");
    let make = || plugin.source("points", &json!({"path": folder.join("points.jsonl"), "batch_rows": 2})).unwrap();
    goes_on_at_each_state(&make);
    let items = read(make().as_ref(), None).unwrap();
    assert_eq!(rows(&items, false)[0], "P0001,13900001201,张三,120,2026-01-02T10:00:00+08:00");
    assert_eq!((rows(&items, false).len(), rows(&items, true).len()), (6, 2));
}

/// The commands of a page, in the real program: the plan that they end with.
#[track_caller]
fn plan_of(folder: &Path) -> String {
    let reunion = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.current_dir(folder).args(arguments);
        end(command).exits(0).stdout
    };
    reunion(&["key", "new", "--output", "state.key"]);
    let checked = reunion(&["--config", "reunion.toml", "check", "--connect"]);
    assert!(checked.contains("the config is right: 1 sources, 0 campaigns, 0 channels"), "{checked}");
    reunion(&["--config", "reunion.toml", "plan"])
}

/// Fails unless a page shows the table of this plan, as it is but for the run's id and spaces at the ends of lines.
#[track_caller]
fn page_shows(page: &str, plan: &str) {
    let text = fs::read_to_string(root().join("docs/author").join(page)).unwrap();
    for line in plan.lines().skip(1).map(str::trim_end).filter(|line| !line.is_empty()) {
        assert!(text.contains(line), "{page} does not show {line:?}");
    }
}

#[test]
fn the_examples_run_in_the_real_program_as_the_pages_show() {
    let lines = Lines::new();
    page_shows("c.md", &plan_of(lines.folder.path()));
    let points = copy_of(&examples().join("rust-points"));
    let libraries = build_rust(&examples().join("rust-points"));
    fs::create_dir_all(points.path().join("target/debug")).unwrap();
    let library = "libreunion_source_points.so";
    fs::copy(libraries.join(library), points.path().join("target/debug").join(library)).unwrap();
    page_shows("rust.md", &plan_of(points.path()));
}

/// `plugins new` with these arguments, in a folder.
fn new_plugin(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).args(["plugins", "new"]).args(arguments);
    command
}

/// Writes a plugin, and checks that it is the template's files, with the name in them.
fn write_new(folder: &Path, name: &str, kind: &str, lang: &str) -> PathBuf {
    let checkout = root();
    let mut arguments = vec![name, "--kind", kind, "--lang", lang, "--format", "json"];
    if lang == "rust" {
        arguments.extend(["--sdk", checkout.to_str().unwrap()]);
    }
    let document = end(new_plugin(folder, &arguments)).exits(0).json();
    let written = folder.join(name);
    let template = files(&root().join("core/daemon/templates/plugin").join(format!("{kind}-{lang}")));
    let kit: BTreeSet<String> = files(&examples().join("c-lines/kit")).into_iter().map(|name| format!("kit/{name}")).collect();
    let shared = if lang == "c" { &kit | &BTreeSet::from(["include/reunion_plugin.h".to_owned()]) } else { BTreeSet::new() };
    assert_eq!(files(&written), &template | &shared, "{kind} {lang}");
    let listed = document["files"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(listed, files(&written));
    for path in files(&written) {
        let text = fs::read_to_string(written.join(&path)).unwrap();
        let left = ["my-plugin", "my_plugin", "/path/to/reunion"].into_iter().find(|marker| text.contains(marker));
        assert_eq!(left, None, "{path}");
    }
    written
}

fn new_in_c(name: &str, kind: PluginKind) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = write_new(parent.path(), name, kind.name(), "c");
    let tested = make(&folder, "test");
    assert!(tested.contains("all tests passed"), "{tested}");
    let library = folder.join(format!("libreunion_{}_{}.so", kind.name(), name.replace('-', "_")));
    verify(&library, &folder);
    let manifest = find(&folder, kind, name).manifest().clone();
    assert_eq!(manifest.sample, fs::read_to_string(folder.join("sample.toml")).unwrap());
    (parent, folder)
}

fn new_in_rust(name: &str, kind: PluginKind) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = write_new(parent.path(), name, kind.name(), "rust");
    let libraries = build_rust(&folder);
    verify(&libraries.join(format!("libreunion_{}_{}.so", kind.name(), name.replace('-', "_"))), &folder);
    (parent, libraries)
}

#[track_caller]
fn makes_members_up(libraries: &Path, name: &str) {
    let plugin = find(libraries, PluginKind::Source, name);
    let make = || plugin.source("test", &json!({"rows": 50, "batch_rows": 7})).unwrap();
    goes_on_at_each_state(&make);
    let rows = rows(&read(make().as_ref(), None).unwrap(), false);
    assert_eq!((rows.len(), rows[17].as_str()), (50, "M17,13900000017,Member 17"));
}

fn tasks(count: usize) -> RecordBatch {
    let schema = task_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "task_id" => Arc::new(StringArray::from_iter_values((0..count).map(|at| TaskId::from_u128(at as u128).to_string()))),
            "campaign" => Arc::new(StringArray::from(vec!["warm-add"; count])),
            "phone" => Arc::new(StringArray::from_iter_values((0..count).map(|at| format!("1390000{at:04}")))),
            _ => new_null_array(field.data_type(), count),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// A task becomes a file, once, however often it is pushed.
#[track_caller]
fn hands_tasks_out(libraries: &Path, name: &str) {
    let out = tempfile::tempdir().unwrap();
    let channel = find(libraries, PluginKind::Channel, name).channel("desk", &json!({"dir": out.path()})).unwrap();
    assert!(channel.traits().idempotent);
    let dispatch = DispatchInfo { dispatch_id: "1".repeat(32), run: "0000000a".into(), ordinal: 1, date: "2026-03-25".into() };
    // A slice, whose columns begin in the middle of their buffers.
    let tasks = tasks(153).slice(3, 150);
    for _ in 0..2 {
        let mut stream = channel.push(&CallOptions::default(), &dispatch, tasks.clone()).unwrap();
        let mut receipts = Vec::new();
        while let Some(more) = stream.next().unwrap() {
            receipts.extend(more);
        }
        assert!(receipts.iter().all(|receipt| receipt.verdict == Verdict::Accepted), "{receipts:?}");
        assert_eq!((receipts.len(), stream.unanswered(), fs::read_dir(out.path()).unwrap().count()), (150, Vec::new(), 150));
    }
    let id = TaskId::from_u128(4).to_string();
    let path = out.path().join(format!("{id}.json"));
    let task: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(task, json!({"task_id": id, "campaign": "warm-add", "phone": "13900000004"}));
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "members' data is nobody else's");
}

#[test]
fn a_new_source_in_c_works_at_once() {
    let (_parent, folder) = new_in_c("my-erp", PluginKind::Source);
    makes_members_up(&folder, "my-erp");
}

#[test]
fn a_new_channel_in_c_works_at_once() {
    let (_parent, folder) = new_in_c("my-desk", PluginKind::Channel);
    hands_tasks_out(&folder, "my-desk");
}

#[test]
fn a_new_source_in_rust_works_at_once() {
    let (_parent, libraries) = new_in_rust("my-erp", PluginKind::Source);
    makes_members_up(&libraries, "my-erp");
}

#[test]
fn a_new_channel_in_rust_works_at_once() {
    let (_parent, libraries) = new_in_rust("my-desk", PluginKind::Channel);
    hands_tasks_out(&libraries, "my-desk");
}

#[test]
fn what_plugins_new_cannot_write_is_refused_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir(parent.path().join("there")).unwrap();
    let own = root().join("plugins/sources/no-such-plugin");
    let cases: [(&[&str], &str); 8] = [
        (&["My ERP", "--kind", "source", "--lang", "c"], "lower-case letters"),
        (&["there", "--kind", "source", "--lang", "c"], "is there already"),
        (&["x", "--kind", "source", "--lang", "c", "--dir", "no/such/folder"], "cannot be reached"),
        (&["x", "--kind", "source", "--lang", "c", "--sdk", "."], "of no use"),
        (&["x", "--kind", "source", "--lang", "rust", "--sdk", "."], "neither the SDK nor a checkout"),
        (&["x", "--kind", "source", "--lang", "rust", "--dir", own.to_str().unwrap()], "crates of Reunion itself"),
        (&["x", "--kind", "sink", "--lang", "c"], "a source or a channel"),
        (&["x", "--kind", "source", "--lang", "go"], "possible values: rust, c"),
    ];
    for (arguments, said) in cases {
        let ended = end(new_plugin(parent.path(), arguments));
        assert!(ended.code != 0 && ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
    }
    assert!(!own.exists());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    if !Path::new("/usr/share/reunion/sdk").exists() {
        let ended = end(new_plugin(parent.path(), &["x", "--kind", "source", "--lang", "rust"])).exits(2);
        ended.says(&["the SDK is not there", parent.path().to_str().unwrap(), "/usr/share/reunion/sdk", "--sdk"]);
    }
}

#[test]
fn plugins_new_finds_the_checkout_around_the_folder_and_says_what_comes_next() {
    let parent = tempfile::tempdir_in(root().join("target")).unwrap();
    let ended = end(new_plugin(parent.path(), &["my-erp", "--kind", "source", "--lang", "rust", "--dir", "a b"])).exits(0);
    let manifest = fs::read_to_string(parent.path().join("a b/Cargo.toml")).unwrap();
    assert!(manifest.contains(r#"reunion-sdk = { path = "../../../core/sdk" }"#), "{manifest}");
    let page = fs::read_to_string(root().join("docs/author/README.md")).unwrap();
    let what = format!("a source in Rust, {} files, with the SDK in ", files(&parent.path().join("a b")).len());
    assert!(page.contains(&what) && ended.stdout.contains(&what), "{}", ended.stdout);
    for line in ["cd 'a b'", "cargo test && cargo build", "plugins verify target/debug/libreunion_source_my_erp.so --config verify.toml"] {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
}

/// The blocks of a page in these languages, each as one line with single spaces.
fn blocks(page: &str, languages: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<Vec<&str>> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut block) {
            (Some(_), Some(_)) => found.push(normalised(&block.take().unwrap_or_default().join("\n"))),
            (Some(language), None) if languages.contains(&language) => block = Some(Vec::new()),
            (None, Some(lines)) => lines.push(line),
            _ => {}
        }
    }
    found
}

fn normalised(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_pages_quote_the_examples() {
    for (page, example) in [("rust.md", "rust-points"), ("c.md", "c-lines")] {
        let folder = examples().join(example);
        let code: Vec<String> =
            files(&folder).iter().filter_map(|path| Some(normalised(&fs::read_to_string(folder.join(path)).ok()?))).collect();
        let text = fs::read_to_string(root().join("docs/author").join(page)).unwrap();
        let quoted = blocks(&text, &["rust", "c", "toml"]);
        assert!(quoted.len() >= 5, "{page} quotes {} blocks", quoted.len());
        for block in quoted {
            // Parts that are left out are marked, and what stands between them is quoted.
            for part in block.split(['…']).map(str::trim).filter(|part| !part.is_empty()) {
                assert!(code.iter().any(|text| text.contains(part)), "{page} quotes what {example} does not have: {part}");
            }
        }
    }
}
