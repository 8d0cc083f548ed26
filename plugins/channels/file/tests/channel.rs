//! The channel through its Rust trait: what it writes, what it never overwrites, what it reads back.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reunion_channel_file::{Config, FileChannel};
use reunion_sdk::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use reunion_sdk::testing::TestCall;
use reunion_sdk::{Call, Channel, DispatchInfo, ErrorClass, Item, PluginError, task_schema};
use serde_json::{Value, json};
use tempfile::TempDir;

const DUE_US: i64 = 1_774_627_199_000_000; // 2026-03-27T15:59:59Z, the last second of the day in Shanghai.

struct Task {
    id: String,
    store: Option<&'static str>,
    name: &'static str,
    message: &'static str,
}

fn task(number: u8) -> Task {
    Task { id: format!("f{number}").repeat(16), store: Some("S01"), name: "王女士", message: "" }
}

fn batch(tasks: &[Task]) -> RecordBatch {
    let texts = |of: &dyn Fn(&Task) -> Option<String>| Arc::new(tasks.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let due = TimestampMicrosecondArray::from(vec![DUE_US; tasks.len()]).with_timezone("UTC");
    let columns = vec![
        texts(&|task| Some(task.id.clone())),
        texts(&|_| Some("warm-add".into())),
        texts(&|task| task.store.map(Into::into)),
        texts(&|_| None),
        texts(&|task| Some(task.name.into())),
        texts(&|_| Some("13900001201".into())),
        texts(&|_| Some("silent for 200 days".into())),
        texts(&|task| Some(task.message.into())),
        Arc::new(due) as ArrayRef,
    ];
    RecordBatch::try_new(task_schema(), columns).unwrap()
}

fn dispatch(ordinal: u32) -> DispatchInfo {
    DispatchInfo { dispatch_id: "d1".into(), run: "ab12".into(), ordinal, date: "2026-03-25".into() }
}

struct Fixture {
    dir: TempDir,
    channel: FileChannel,
}

impl Fixture {
    fn new() -> Self {
        Self::with(json!({}))
    }

    /// A channel with these keys beside the paths, lists settled at once.
    fn with(more: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = json!({
            "path": dir.path().join("out/{store}/{date}-{run}.csv"),
            "return_dir": dir.path().join("back"),
            "settle_secs": 0,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fs::create_dir(dir.path().join("back")).unwrap();
        let config: Config = serde_json::from_value(config).unwrap();
        Self { channel: FileChannel::create("store-list", config).unwrap(), dir }
    }

    fn push(&self, tasks: &[Task], ordinal: u32) -> Result<usize, PluginError> {
        let receipts = self.channel.push(&Call::for_tests(), &dispatch(ordinal), batch(tasks))?;
        let receipts: Vec<_> = receipts.collect::<Result<_, _>>()?;
        for receipt in &receipts {
            assert!(receipt.column(1).as_string::<i32>().iter().all(|verdict| verdict == Some("accepted")));
        }
        Ok(receipts.iter().map(RecordBatch::num_rows).sum())
    }

    fn list(&self, name: &str) -> PathBuf {
        self.dir.path().join("out/S01").join(name)
    }

    fn back(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join("back").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn poll(&self, state: Option<Value>) -> Polled {
        let items = self.channel.poll(&Call::for_tests(), state).unwrap();
        let mut polled = Polled::default();
        for item in items {
            match item.unwrap() {
                Item::Batch(batch) => polled.events.extend(rows(&batch, &[1, 2, 4])),
                Item::Rejected(batch) => polled.rejected.extend(rows(&batch, &[0, 1])),
                Item::State(state) => polled.state = Some(state),
                Item::End { as_of_us } => assert_eq!(as_of_us, None),
                Item::Begin { .. } | Item::Unchanged { .. } => panic!("no read"),
            }
        }
        polled
    }
}

#[derive(Default)]
struct Polled {
    /// Task, outcome and note.
    events: Vec<String>,
    /// Location and reason.
    rejected: Vec<String>,
    state: Option<Value>,
}

fn rows(batch: &RecordBatch, columns: &[usize]) -> Vec<String> {
    let cell = |column: usize, row: usize| {
        let array = batch.column(column).as_string::<i32>();
        if array.is_null(row) { "-".to_owned() } else { array.value(row).to_owned() }
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(*column, row)).collect::<Vec<_>>().join(" ")).collect()
}

fn read(path: &Path) -> Vec<Vec<String>> {
    let bytes = fs::read(path).unwrap();
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").expect("a byte order mark");
    assert!(text.ends_with(b"\r\n"));
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text);
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn a_work_list_holds_its_tasks_in_order() {
    let fixture = Fixture::new();
    let hostile = Task { name: "=cmd|'/c calc'!A1", message: "say \"hi\",\r\nthen go", ..task(2) };
    assert_eq!(fixture.push(&[task(1), hostile], 1).unwrap(), 2);
    let rows = read(&fixture.list("2026-03-25-ab12.csv"));
    assert_eq!(rows[0], ["task_id", "campaign", "store", "staff", "name", "phone", "reason", "message", "due", "result", "note"]);
    assert_eq!(
        rows[1],
        [&"f1".repeat(16), "warm-add", "S01", "", "王女士", "13900001201", "silent for 200 days", "", "2026-03-27", "", ""]
    );
    assert_eq!((rows[2][4].as_str(), rows[2][7].as_str()), ("'=cmd|'/c calc'!A1", "say \"hi\",\r\nthen go"));
    assert_eq!(rows.len(), 3);
}

#[test]
fn the_traits_follow_the_path() {
    let traits = Fixture::new().channel.traits();
    assert_eq!((traits.group_by, traits.needs, traits.idempotent), (vec!["store".to_owned()], vec!["store".to_owned()], true));
    let flat = Fixture::with(json!({ "path": "/tmp/{campaign}/{staff}/{dispatch}.csv" })).channel.traits();
    assert_eq!((flat.group_by, flat.needs), (vec!["campaign".to_owned(), "staff".to_owned()], vec!["staff".to_owned()]));
}

#[test]
fn the_same_dispatch_again_changes_nothing() {
    let fixture = Fixture::new();
    fixture.push(&[task(1), task(2)], 1).unwrap();
    let path = fixture.list("2026-03-25-ab12.csv");
    // The clerk has filled it in where it lies, and the spreadsheet saved it in its own way.
    let filled = fs::read_to_string(&path).unwrap().replace("2026-03-27,,", "2026-03-27,added,").replace(',', ";");
    fs::write(&path, &filled).unwrap();
    assert_eq!(fixture.push(&[task(2), task(1)], 1).unwrap(), 2);
    assert_eq!(fs::read_to_string(&path).unwrap(), filled);
}

#[test]
fn other_tasks_never_overwrite_a_list() {
    let fixture = Fixture::new();
    fixture.push(&[task(1)], 1).unwrap();
    let before = fs::read(fixture.list("2026-03-25-ab12.csv")).unwrap();
    for tasks in [vec![task(1), task(2)], vec![task(3)]] {
        let error = fixture.push(&tasks, 1).unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidData);
        assert!(error.message.ends_with("out/{store}/2026-03-25-ab12.csv is there already with other tasks"), "{error}");
    }
    assert_eq!(fs::read(fixture.list("2026-03-25-ab12.csv")).unwrap(), before);
    assert_eq!(fs::read_dir(fixture.list("")).unwrap().count(), 1);
    fixture.push(&[task(3)], 2).unwrap();
    assert!(fixture.list("2026-03-25-ab12-2.csv").exists());
}

#[test]
fn a_killed_push_is_done_again() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.list("")).unwrap();
    fs::write(fixture.list(".2026-03-25-ab12.csv.part"), "half a li").unwrap();
    fixture.push(&[task(1)], 1).unwrap();
    assert_eq!(read(&fixture.list("2026-03-25-ab12.csv")).len(), 2);
    assert_eq!(fs::read_dir(fixture.list("")).unwrap().count(), 1);
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let fixture = Fixture::new();
    let (call, _) = TestCall { dry_run: true, ..TestCall::default() }.start();
    let receipts = fixture.channel.push(&call, &dispatch(1), batch(&[task(1)])).unwrap();
    assert_eq!(receipts.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
    assert!(!fixture.dir.path().join("out").exists());
}

#[test]
fn a_cancelled_push_writes_nothing() {
    let fixture = Fixture::new();
    let (call, canceller) = TestCall::default().start();
    canceller.cancel();
    let error = fixture.channel.push(&call, &dispatch(1), batch(&[task(1)])).err().unwrap();
    assert_eq!(error.class, ErrorClass::Cancelled);
    assert!(!fixture.dir.path().join("out").exists());
}

#[test]
fn values_stay_in_their_folder() {
    let fixture = Fixture::new();
    fixture.push(&[Task { store: Some("../../../tmp/x"), ..task(1) }], 1).unwrap();
    assert!(fixture.dir.path().join("out/%2E.%2F..%2F..%2Ftmp%2Fx/2026-03-25-ab12.csv").exists());
    let mixed = fixture.push(&[task(1), Task { store: Some("S02"), ..task(2) }], 1).unwrap_err();
    assert_eq!(mixed.class, ErrorClass::Internal);
}

#[test]
fn a_path_through_a_file_is_the_operators_mistake() {
    let fixture = Fixture::new();
    fs::write(fixture.dir.path().join("out"), "").unwrap();
    assert_eq!(fixture.push(&[task(1)], 1).unwrap_err().class, ErrorClass::InvalidConfig);
    assert_eq!(fixture.channel.check(&Call::for_tests()).unwrap_err().class, ErrorClass::InvalidConfig);
}

#[test]
fn check_warns_of_what_may_not_be_meant() {
    let quiet = Fixture::new();
    assert_eq!(quiet.channel.check(&Call::for_tests()).unwrap(), []);
    let dir = tempfile::tempdir().unwrap();
    let loud = Fixture::with(json!({ "path": dir.path().join("{store}.csv"), "return_dir": dir.path().join("none") }));
    assert_eq!(loud.channel.check(&Call::for_tests()).unwrap().len(), 2);
}

#[test]
fn results_come_back_once() {
    let fixture = Fixture::new();
    fixture.push(&[task(1), task(2), task(3)], 1).unwrap();
    let list = fs::read_to_string(fixture.list("2026-03-25-ab12.csv")).unwrap();
    fixture.back("S01/list.csv", list.replacen("2026-03-27,,", "2026-03-27,added,moved to the other store", 1));
    let first = fixture.poll(None);
    assert_eq!(first.events, [format!("{} added moved to the other store", "f1".repeat(16))]);
    assert!(fixture.poll(first.state.clone()).state.is_none(), "nothing is new");
    // Saved again with one more result: both are told, and the first counts once by its id.
    fixture.back("S01/list.csv", list.replace("2026-03-27,,", "2026-03-27,Do Not Call,"));
    let second = fixture.poll(first.state);
    assert_eq!(second.events.len(), 3);
    // The same content at another time says nothing new.
    fs::remove_file(fixture.dir.path().join("back/S01/list.csv")).unwrap();
    let gone = fixture.poll(second.state);
    assert_eq!((gone.events.len(), gone.state), (0, Some(json!({ "files": {} }))));
}

#[test]
fn what_cannot_be_read_is_told_and_not_dropped() {
    let fixture = Fixture::with(json!({ "results": { "已添加": "added" } }));
    let id = "ab".repeat(16);
    fixture.back("a.csv", format!("task_id,result\n{id},perhaps\n,added\n{id},\n"));
    fixture.back("b.xlsx", "PK");
    fixture.back("c.txt", encoding_rs::GB18030.encode(&format!("结果,task_id,result\n,{id},已添加\n")).0);
    fixture.back(".hidden.csv", "x");
    fixture.back("~$d.csv", "x");
    let polled = fixture.poll(None);
    assert_eq!(polled.events, [format!("{id} added -")]);
    assert_eq!(polled.rejected, ["a.csv:2 result_unknown", "a.csv:3 task_id_invalid", "b.xlsx:1 return_unreadable"]);
    assert!(fixture.poll(polled.state).rejected.is_empty(), "each file is told once");
}

#[test]
fn a_list_that_is_still_being_saved_is_waited_for() {
    let fixture = Fixture::with(json!({ "settle_secs": 3600 }));
    fixture.back("a.csv", "task_id,result\n");
    let (call, canceller) = TestCall::default().start();
    canceller.cancel();
    assert_eq!(fixture.channel.poll(&call, None).err().unwrap().class, ErrorClass::Cancelled);
}

#[test]
fn a_return_folder_that_is_gone_is_tried_again_later() {
    let fixture = Fixture::new();
    fs::remove_dir(fixture.dir.path().join("back")).unwrap();
    assert_eq!(fixture.channel.poll(&Call::for_tests(), None).err().unwrap().class, ErrorClass::Unavailable);
    let foreign = fixture.channel.poll(&Call::for_tests(), Some(json!({ "offset": 7 }))).err().unwrap();
    assert_eq!(foreign.class, ErrorClass::Internal);
}
