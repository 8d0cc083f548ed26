//! A retailer in a temporary folder: exports, config, key and state, and the real binary to run on them.
//!
//! Whatever a test runs, its output is searched for the phone numbers that were fed in: one that is
//! found fails the test. Only `query` may show them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::generator::{self, Encoding, Export, Made, NOW_SECS, Plan};

/// No run of a test takes so long; one that does is ended.
const WATCHDOG: Duration = Duration::from_secs(180);
const DAY_SECS: i64 = 86_400;
/// The master key of every retailer, so that two of them give the same ids.
pub const KEY: &str = "6b65792d6f662d746865742d74657374732d6f662d7265756e696f6e2d303031";

/// What a config begins with whose state lies beside it, and whose clock a test sets.
pub const OPENING: &str = r#"
timezone = "Asia/Shanghai"
[state]
dir = "state"
key = { file = "state.key" }
[testing]
clock = true
"#;

/// The config of [`Retailer::generated`]: two exports, a store's work list, no limits that defer.
pub const TWO_SOURCES: &str = r#"
timezone = "Asia/Shanghai"

[state]
dir = "state"
key = { file = "state.key" }

[testing]
clock = true

[sources.till]
plugin = "file"
mode = "snapshot"
[sources.till.columns]
record_id = "卡号"
name = "姓名"
phone = "手机"
store = "门店"
staff = "导购"
created_at = "建卡时间"
updated_at = "修改时间"
last_order_at = "最后消费"
order_count = "消费次数"
total_spent = "消费金额"
sms_consent = "短信同意"
[sources.till.with]
path = "till.csv"
settle_secs = 0

[sources.shop]
plugin = "file"
mode = "snapshot"
[sources.shop.columns]
record_id = "id"
phone = "mobile"
created_at = "created"
updated_at = "modified"
last_order_at = "last_order"
order_count = "orders"
total_spent = "spent"
sms_consent = "sms"
sms_consent_at = "sms_at"
sms_consent_evidence = "sms_proof"
[sources.shop.with]
path = "shop.csv"
settle_secs = 0

[identity]
keys = ["phone", "unionid"]
shared_phone = { cards_max = 5, policy = "merge" }

[tags.dormant]
when = "days_since_last_order > 180"
[tags.key_member]
when = "store_rank_by_spent <= 20"
[tags.win_back]
when = "dormant and rfm_segment in ('must_keep', 'must_win_back')"

[campaigns.warm-add]
audience = "phone_only and win_back and store is not null"
channel = "store-list"
holdout = 0.10
per_run_max = 100000
per_store_per_day_max = 100000
reason = "{{ days_since_last_order }} days away, {{ total_spent }} spent"

[campaigns.key-members]
audience = "phone_only and key_member and dormant and store is not null"
channel = "store-list"
holdout = 0.10
per_run_max = 100000
per_store_per_day_max = 100000

[channels.store-list]
plugin = "file"
[channels.store-list.with]
path = "out/{store}/{date}-{run}.csv"
return_dir = "returned"
settle_secs = 0

[pipelines.daily]
sources = ["shop", "till"]
campaigns = ["warm-add", "key-members"]
"#;

/// The config of [`Retailer::by_hand`]: one export with our own column names, everybody dormant is a task.
pub const ONE_SOURCE: &str = r#"
timezone = "Asia/Shanghai"

[state]
dir = "state"
key = { file = "state.key" }

[testing]
clock = true

[sources.pos]
plugin = "file"
mode = "snapshot"
deleted_share_max = 1.0
[sources.pos.with]
path = "pos.csv"
settle_secs = 0

[tags.dormant]
when = "days_since_last_order > 180"

[campaigns.warm-add]
audience = "phone_only and dormant"
channel = "store-list"
holdout = 0.0

[channels.store-list]
plugin = "file"
[channels.store-list.with]
path = "out/{store}/{date}-{run}.csv"
return_dir = "returned"
settle_secs = 0

[pipelines.daily]
sources = ["pos"]
campaigns = ["warm-add"]
"#;

/// The header of exports that are written by hand.
pub const HEADER: &str = "record_id,phone,name,store,created_at,updated_at,last_order_at,order_count,total_spent";

/// A row under [`HEADER`] of a member whose last order is a year and more ago.
pub fn row(record_id: &str, phone: &str, name: &str, store: &str) -> String {
    format!("{record_id},{phone},{name},{store},2024-01-02T03:04:05Z,2025-01-02T03:04:05Z,2025-01-02T03:04:05Z,2,300.00")
}

/// An export of these rows under [`HEADER`].
pub fn export<T: AsRef<str>>(rows: impl IntoIterator<Item = T>) -> String {
    let rows: String = rows.into_iter().map(|row| format!("{}\n", row.as_ref())).collect();
    format!("{HEADER}\n{rows}")
}

/// A retailer: a folder with all that it has.
pub struct Retailer {
    dir: TempDir,
    config: String,
    /// The clock that runs are told, seconds since the epoch.
    pub now_secs: i64,
    fed: HashSet<Vec<u8>>,
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// The process that it was.
    pub pid: u32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// The same, if it ended with this code.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "exit {} where {code} was expected\n{}\n{}", self.code, self.stdout, self.stderr);
        self
    }

    /// The JSON document on standard output.
    ///
    /// # Panics
    /// Where there is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("standard output is no JSON document: {error}\n{}\n{}", self.stdout, self.stderr),
        }
    }

    /// Fails unless standard error says all of this.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said\n{}", self.stderr);
        }
    }
}

/// A work list that was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkList {
    /// Its path below `out`, with the run's id replaced by `RUN`.
    pub place: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its rows, each by column.
    pub rows: Vec<BTreeMap<String, String>>,
}

/// Everything that a state and its work lists hold, up to run ids and the times of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// All columns of all members, by id.
    pub members: Vec<Value>,
    /// For each record its member or the reason why it has none.
    pub records: Vec<Value>,
    /// The tasks by id.
    pub tasks: Vec<Value>,
    /// The rows of work lists: place and cells, in order of task ids.
    pub listed: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

impl Retailer {
    /// One with the exports of a plan: `till.csv` in GB18030 and `shop.csv` in UTF-8.
    pub fn generated(plan: &Plan) -> (Self, Made) {
        let made = generator::make(plan);
        let mut retailer = Self::new(TWO_SOURCES);
        retailer.write_exports(&made, plan.unreadable);
        (retailer, made)
    }

    /// One with a single export `pos.csv` that the test writes itself.
    pub fn by_hand(export: &str) -> Self {
        let mut retailer = Self::new(ONE_SOURCE);
        retailer.write("pos.csv", export);
        retailer
    }

    /// One with this config and no exports.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("reunion-test-").tempdir().expect("a temporary folder can be made");
        // Tests that run the binary as another user have to reach it.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        fs::create_dir(dir.path().join("returned")).expect("a folder can be made");
        let retailer = Self { dir, config: String::new(), now_secs: NOW_SECS, fed: HashSet::new() };
        // `cargo test` puts the plugins beside the tests, and not beside the binary as `cargo build` does.
        fs::create_dir(retailer.path("conf.d")).expect("a folder can be made");
        fs::write(retailer.path("conf.d/plugins.toml"), format!("[plugins]\npath = [{:?}]\n", libraries())).expect("a file can be written");
        retailer.write_key("state.key", KEY);
        retailer.with_config(config)
    }

    /// The same folder under another config.
    fn with_config(mut self, config: &str) -> Self {
        self.set_config(config);
        self
    }

    /// Replaces the config.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn set_config(&mut self, config: &str) {
        config.clone_into(&mut self.config);
        fs::write(self.path("reunion.toml"), config).expect("the config can be written");
    }

    /// Moves the ledger to this database, before there is one; a run waits so long for the right to change it.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn set_ledger(&mut self, url: &str, lease_wait_secs: u64) {
        self.edit_config("dir = \"state\"\n", &format!("dir = \"state\"\nledger = {url:?}\nlease_wait_secs = {lease_wait_secs}\n"));
    }

    /// Replaces a part of the config, which must be there.
    ///
    /// # Panics
    /// Where it is not.
    #[track_caller]
    pub fn edit_config(&mut self, from: &str, to: &str) {
        assert!(self.config.contains(from), "the config has no {from:?}");
        let config = self.config.replace(from, to);
        self.set_config(&config);
    }

    /// Writes a master key to a file that only its owner can read.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn write_key(&self, name: &str, key: &str) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).expect("a key can be written");
        file.write_all(key.as_bytes()).expect("a key can be written");
    }

    /// A path below the retailer's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an export as text; the file is an hour old by the run's clock.
    pub fn write(&mut self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
        self.feed(text);
    }

    /// Writes an export's bytes under another name and renames it into place, as exporters should.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let (part, path) = (self.path(&format!(".{name}.part")), self.path(name));
        let mut file = File::create(&part).expect("a file can be made");
        file.write_all(bytes).expect("a file can be written");
        file.set_modified(self.moment(-3_600)).expect("a file's time can be set");
        fs::rename(part, path).expect("a file can be renamed");
    }

    /// Writes the exports of a plan, `till.csv` in GB18030 and `shop.csv` in UTF-8.
    pub fn write_exports(&mut self, made: &Made, unreadable: bool) {
        let [till, shop] = &made.exports;
        self.write_export("till.csv", till, Encoding::Gb18030, unreadable);
        self.write_export("shop.csv", shop, Encoding::Utf8, unreadable);
    }

    /// Writes one export.
    ///
    /// # Panics
    /// Where the disk refuses.
    pub fn write_export(&mut self, name: &str, export: &Export, encoding: Encoding, unreadable: bool) {
        let bytes = generator::file(export, encoding, unreadable).expect("cells are text");
        self.write_bytes(name, &bytes);
        for row in &export.rows {
            self.feed(&row[2]);
        }
        for number in 13_712_340_001_u64..=13_712_340_004 {
            self.feed(&number.to_string());
        }
    }

    /// Notes the phone numbers of a text, so that no output may show them.
    fn feed(&mut self, text: &str) {
        let lone: String = text.chars().filter(char::is_ascii_digit).collect();
        let cells = text.split([',', '\n']).map(|cell| cell.chars().filter(char::is_ascii_digit).collect::<String>());
        for digits in cells.chain([lone]).filter(|digits| (11..=15).contains(&digits.len())) {
            let digits = &digits.as_bytes()[digits.len() - 11..];
            if digits[0] == b'1' {
                self.fed.insert(digits.to_vec());
            }
        }
    }

    /// The run's clock, RFC 3339.
    pub fn now(&self) -> String {
        jiff::Timestamp::from_second(self.now_secs).unwrap_or_default().to_string()
    }

    fn moment(&self, offset_secs: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs((self.now_secs + offset_secs).unsigned_abs())
    }

    /// Lets days pass. Exports that are not written anew grow older.
    pub fn pass_days(&mut self, days: i64) {
        self.now_secs += days * DAY_SECS;
    }

    /// Makes a file an hour old by the run's clock, as if it had been exported again.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn touch(&self, name: &str) {
        let file = File::options().write(true).open(self.path(name)).expect("the file is there");
        file.set_modified(self.moment(-3_600)).expect("a file's time can be set");
    }

    /// The command that runs the binary on this retailer's config.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.path("reunion.toml")).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ended {
        self.finish(self.command(args))
    }

    /// Runs it with `--format json`, expecting exit 0; the document.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--format", "json"]].concat()).exits(0).json()
    }

    /// `once` at the retailer's clock, with more arguments.
    #[track_caller]
    pub fn once_with(&self, args: &[&str]) -> Ended {
        self.run(&[&["once", "--format", "json", "--now", &self.now()], args].concat())
    }

    /// `once`, expecting exit 0; its report.
    #[track_caller]
    pub fn once(&self) -> Value {
        self.once_with(&[]).exits(0).json()
    }

    /// Another run in which no row of `pos.csv` changed; its report, whose counts add up.
    #[track_caller]
    pub fn again(&self) -> Value {
        self.touch("pos.csv");
        let report = self.once();
        assert_sums(&report);
        report
    }

    /// `plan`, expecting exit 0; its report.
    #[track_caller]
    pub fn plan(&self) -> Value {
        self.run(&["plan", "--format", "json", "--now", &self.now()]).exits(0).json()
    }

    /// The rows that a query answers with.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Value> {
        // The only command that may show phone numbers.
        let ended = end(self.command(&["query", sql, "--format", "json"])).exits(0);
        ended.json().as_array().cloned().unwrap_or_default()
    }

    /// Runs a command to its end and searches what it says for phone numbers.
    ///
    /// # Panics
    /// Where it shows one, panics itself, or does not end.
    #[track_caller]
    pub fn finish(&self, command: Command) -> Ended {
        let ended = end(command);
        self.shows_no_phone(&ended.stdout);
        self.shows_no_phone(&ended.stderr);
        assert!(!ended.stderr.contains("panicked at"), "the program broke off\n{}", ended.stderr);
        ended
    }

    /// Fails where a text shows a phone number that was fed in.
    ///
    /// # Panics
    /// Where it does.
    #[track_caller]
    pub fn shows_no_phone(&self, text: &str) {
        let shown = text.as_bytes().windows(11).find(|window| self.fed.contains(*window));
        assert!(shown.is_none(), "a phone number is shown\n{text}");
    }

    /// Starts the binary without waiting for it.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started")
    }

    /// The work lists that are there, by place.
    ///
    /// # Panics
    /// Where one is no CSV file.
    pub fn work_lists(&self) -> Vec<WorkList> {
        let root = self.path("out");
        let mut paths = Vec::new();
        files_below(&root, &mut paths);
        let mut lists: Vec<_> = paths.into_iter().map(|path| work_list(&root, path)).collect();
        lists.sort();
        lists
    }

    /// All that the state and the work lists hold.
    ///
    /// # Panics
    /// Where a task stands in two work lists.
    #[track_caller]
    pub fn picture(&self) -> Picture {
        let tasks =
            "select task_id, campaign, member_id, contact, touch, channel, store, staff, state, outcome from tasks order by task_id";
        let mut listed = BTreeMap::new();
        for list in self.work_lists() {
            for row in list.rows {
                let twice = listed.insert(row["task_id"].clone(), (list.place.clone(), row));
                assert!(twice.is_none(), "a task stands in two work lists: {twice:?}");
            }
        }
        Picture {
            members: self.query("select * from members order by member_id"),
            records: self.query("select source, record_id, member_id, reason from records order by source, record_id, reason"),
            tasks: self.query(tasks),
            listed,
        }
    }
}

fn work_list(root: &Path, path: PathBuf) -> WorkList {
    let place = path.strip_prefix(root).expect("it lies below").to_string_lossy().into_owned();
    let (folder, name) = place.rsplit_once('/').unwrap_or(("", &place));
    // 2026-09-21-0a1b2c3d.csv, with a number behind where a run has several.
    let place = match name.get(10..) {
        Some(after) if after.starts_with('-') && after.len() >= 13 => format!("{folder}/{}-RUN{}", &name[..10], &name[19..]),
        _ => place.clone(),
    };
    let bytes = fs::read(&path).expect("a work list can be read");
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").expect("a work list begins with a byte order mark");
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers().expect("a work list has a header").clone();
    let rows = reader.records().map(|record| {
        let record = record.expect("a work list is CSV");
        header.iter().map(str::to_owned).zip(record.iter().map(str::to_owned)).collect()
    });
    WorkList { rows: rows.collect(), place, path }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// The files below a folder with their contents, to see whether something was changed.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut paths = Vec::new();
    files_below(folder, &mut paths);
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
}

/// The folder of the tests, in which cargo puts the plugins too.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.parent().expect("it lies in a folder").to_owned()
}

/// The binary under test, where cargo has put it: beside the folder of the tests.
///
/// # Panics
/// Where it or a plugin was not built.
pub fn binary() -> PathBuf {
    let libraries = libraries();
    let binary = libraries.parent().expect("tests lie in a folder of the target folder").join("reunion");
    for path in [&binary, &libraries.join("libreunion_source_file.so"), &libraries.join("libreunion_channel_file.so")] {
        assert!(path.exists(), "{} is not there: run `cargo build --workspace --all-targets` first", path.display());
    }
    binary
}

/// The program with fault points. Its name is its own, so that building it leaves `reunion` and the plugins
/// as they are; the dependencies are those of the plain build, and are not built again.
///
/// # Panics
/// Where it cannot be built.
pub fn faults() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let plain = binary();
        let profile = plain.parent().expect("the binary lies in a folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
        cargo.args(["build", "--quiet", "--workspace", "--bin", "reunion-faults", "--features", "reunion-daemon/faults"]);
        cargo.arg("--target-dir").arg(profile.parent().expect("a profile lies in the target folder"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        // What cargo has told this test of its own package would make build scripts think that they changed.
        let of_this_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for name in std::env::vars().map(|(name, _)| name).filter(|name| of_this_package(name)) {
            cargo.env_remove(name);
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo can be started").success(), "the program with fault points can be built");
        profile.join("reunion-faults")
    })
}

/// Runs a command to its end, which a watchdog enforces.
///
/// # Panics
/// Where it cannot be started or does not end.
#[track_caller]
pub fn end(mut command: Command) -> Ended {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command can be started");
    let pid = child.id();
    let (ended, watched) = channel::<()>();
    let watchdog = std::thread::spawn(move || match watched.recv_timeout(WATCHDOG) {
        Err(RecvTimeoutError::Timeout) => Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok(),
        _ => false,
    });
    let output = child.wait_with_output().expect("the command can be waited for");
    drop(ended);
    let killed = watchdog.join().unwrap_or(false);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(!killed, "it did not end within {} s\n{stdout}\n{stderr}", WATCHDOG.as_secs());
    Ended { code: output.status.code().unwrap_or(-1), pid, stdout, stderr }
}

/// A count in a report; fails where it is none.
///
/// # Panics
/// Where it is none.
#[track_caller]
pub fn count(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is no count in {report:#}"))
}

/// The sum of a map of counts in a report.
///
/// # Panics
/// Where it is no map of counts.
#[track_caller]
pub fn total(report: &Value, path: &str) -> u64 {
    let map = report.pointer(path).and_then(Value::as_object).unwrap_or_else(|| panic!("{path} is no map in {report:#}"));
    map.values().map(|count| count.as_u64().expect("a count")).sum()
}

/// Fails where a sum that a report must keep does not hold.
///
/// # Panics
/// Where one does not.
#[track_caller]
pub fn assert_sums(report: &Value) {
    let names = |key: &str| report[key].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    for source in names("sources") {
        let of = |key: &str| count(report, &format!("/sources/{source}/{key}"));
        let parts = of("new") + of("changed") + of("unchanged") + of("superseded");
        assert_eq!(of("pulled"), parts + total(report, &format!("/sources/{source}/quarantined")), "{source}: {report:#}");
    }
    for campaign in names("campaigns") {
        let of = |key: &str| count(report, &format!("/campaigns/{campaign}/{key}"));
        let stopped = ["refused", "deferred"].map(|key| total(report, &format!("/campaigns/{campaign}/{key}")));
        assert_eq!(of("audience"), stopped[0] + of("held_out") + stopped[1] + of("planned"), "{campaign}: {report:#}");
    }
}

/// A report without what differs from run to run though nothing else does.
pub fn comparable(report: &Value) -> Value {
    let mut report = report.clone();
    if let Some(map) = report.as_object_mut() {
        for key in ["run_id", "dry_run", "channels", "samples", "stage_secs", "notes", "finish_forecast"] {
            map.remove(key);
        }
    }
    report
}

/// The ids of all tasks that stand in work lists.
pub fn listed_ids(lists: &[WorkList]) -> BTreeSet<String> {
    lists.iter().flat_map(|list| &list.rows).map(|row| row["task_id"].clone()).collect()
}
