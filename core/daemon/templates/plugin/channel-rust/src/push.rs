//! One push: the tasks of a dispatch, and a receipt for each.

use reunion_sdk::arrow::array::{Array, AsArray, RecordBatch};
use reunion_sdk::arrow::datatypes::TimestampMicrosecondType;
use reunion_sdk::{Call, PluginError, ReceiptsBuilder};
use serde_json::{Map, Value};

use crate::folder::Folder;

/// Tasks whose files are made durable together.
const RECEIPTS_AT_ONCE: usize = 64;
/// How long a task is put off.
const RETRY_AFTER_MS: u64 = 60_000;

/// What became of a task.
enum Fate {
    Taken,
    NotTaken,
    NoId,
}

/// The receipts of one push, each batch of them as soon as it is known.
pub struct Push {
    call: Call,
    folder: Folder,
    tasks: RecordBatch,
    /// The task that comes next.
    task: usize,
    is_over: bool,
}

impl Push {
    /// Of these tasks.
    pub fn new(call: Call, folder: Folder, tasks: RecordBatch) -> Self {
        Self { call, folder, tasks, task: 0, is_over: false }
    }

    fn id(&self, task: usize) -> &str {
        self.tasks.column(0).as_string::<i32>().value(task)
    }

    /// Hands some tasks over, then makes all of them durable at once. A receipt that is known is
    /// handed out, also where the call is to stop.
    fn receipts(&mut self) -> Result<RecordBatch, PluginError> {
        let first = self.task;
        let mut fates = Vec::new();
        while fates.len() < RECEIPTS_AT_ONCE && self.task < self.tasks.num_rows() {
            match self.call.check() {
                Err(error) if fates.is_empty() => return Err(error),
                Err(_) => break,
                Ok(()) => fates.push(self.hand_over(self.task)),
            }
            self.task += 1;
        }
        let is_durable = self.call.dry_run() || self.folder.settle().is_ok();
        let mut receipts = ReceiptsBuilder::new();
        for (at, fate) in fates.into_iter().enumerate() {
            answer(&mut receipts, self.id(first + at), fate, is_durable);
        }
        Ok(receipts.finish())
    }

    fn hand_over(&self, task: usize) -> Fate {
        let id = self.id(task);
        // Nothing else becomes the name of a file.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Fate::NoId;
        }
        // A dry run answers as if, and leaves nothing behind.
        if self.call.dry_run() {
            return Fate::Taken;
        }
        match self.folder.put(id, &to_json(&self.tasks, task)) {
            Ok(()) => Fate::Taken,
            Err(error) => {
                tracing::warn!(kind = %error.kind(), "a file cannot be put into the folder");
                Fate::NotTaken
            }
        }
    }
}

/// `accepted`: taken, and it outlives a power cut. `unknown`: it may or may not. `busy`: surely not
/// taken, through nothing of the task; it is given again. `rejected`: refused for good.
fn answer(receipts: &mut ReceiptsBuilder, id: &str, fate: Fate, is_durable: bool) {
    match fate {
        Fate::Taken if is_durable => receipts.accepted(id),
        Fate::Taken => receipts.unknown(id, None, "the disk did not confirm it"),
        Fate::NotTaken => receipts.busy(id, RETRY_AFTER_MS, None, "the folder takes no files now"),
        Fate::NoId => receipts.rejected(id, None, "the task's id is none"),
    }
}

/// A task as JSON; what is null is left out.
fn to_json(tasks: &RecordBatch, task: usize) -> Vec<u8> {
    let mut json = Map::new();
    for (field, column) in tasks.schema().fields().iter().zip(tasks.columns()) {
        if column.is_null(task) {
            continue;
        }
        if let Some(text) = column.as_string_opt::<i32>() {
            json.insert(field.name().clone(), text.value(task).into());
        } else if let Some(time) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            json.insert(format!("{}_us", field.name()), time.value(task).into());
        }
    }
    let mut line = Value::Object(json).to_string().into_bytes();
    line.push(b'\n');
    line
}

impl Iterator for Push {
    type Item = Result<RecordBatch, PluginError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over || self.task == self.tasks.num_rows() {
            return None;
        }
        let receipts = self.receipts();
        self.is_over = receipts.is_err();
        Some(receipts)
    }
}
