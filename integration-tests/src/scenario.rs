//! A small retailer in a folder, for tests that disturb a run: exports in several files, two campaigns,
//! work lists by store, and a second day with changes and a list that came back.
//!
//! A folder can be copied and goes on where it was. Run clocks are fixed, and the files' times with
//! them, so that two folders of the same day come to the same dump.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::dump::{self, Dump, Failed};
use crate::generator::{Encoding, Export, NOW_SECS, Plan, file, make};

/// The master key of every scenario. It guards invented data.
const MASTER_KEY: &str = "7b0c5f0e1d2c3b4a59687766554433221100ffeeddccbbaa9988776655443322";
/// The second day is this much later: beyond the gap between two touches.
const DAYS_BETWEEN: i64 = 31;
const DAY_SECS: i64 = 86_400;

const CONFIG: &str = r#"
timezone = "Asia/Shanghai"

[state]
dir = "state"
key = { file = "state.key" }

[testing]
clock = true

[limits]
commit_secs = 0

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
path = "in/till-*.csv"
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
path = "in/shop-*.csv"
settle_secs = 0

[identity]
keys = ["phone", "unionid"]
shared_phone = { cards_max = 5, policy = "merge" }

[tags.dormant]
when = "days_since_last_order > 180"
[tags.key_member]
when = "store_rank_by_spent <= 10"

[campaigns.warm-add]
audience = "phone_only and dormant and not key_member and store is not null"
channel = "store-list"
holdout = 0.10
touches_max = 2
gap_days = 7
per_store_per_day_max = 12
message = "{{ name }}您好,我是{{ store }}店的导购。"

[campaigns.benefit-sms]
audience = "phone_only and dormant"
channel = "sms-list"
holdout = 0.10

[channels.store-list]
plugin = "file"
[channels.store-list.with]
path = "out/{store}/{date}-{run}.csv"
return_dir = "returned"
settle_secs = 0

[channels.sms-list]
plugin = "file"
[channels.sms-list.with]
path = "out/sms/{date}-{run}.csv"
consent = "sms"

[pipelines.daily]
sources = ["shop", "till"]
campaigns = ["warm-add", "benefit-sms"]
"#;

/// Which of the two days a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    /// A fresh state.
    First,
    /// Over the first day's generation: rows changed, came and went, and a list came back.
    Second,
}

impl Day {
    fn secs(self) -> i64 {
        match self {
            Self::First => NOW_SECS,
            Self::Second => NOW_SECS + DAYS_BETWEEN * DAY_SECS,
        }
    }
}

/// A retailer in a folder.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The folder.
    pub folder: PathBuf,
    /// Rows of the exports together.
    pub rows: usize,
}

impl Scenario {
    /// Writes config, key and the first day's exports into a folder.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(folder: &Path, rows: usize) -> Result<Self, Failed> {
        for below in ["in", "out", "returned"] {
            fs::create_dir_all(folder.join(below))?;
        }
        fs::write(folder.join("reunion.toml"), CONFIG)?;
        fs::write(folder.join("state.key"), MASTER_KEY)?;
        fs::set_permissions(folder.join("state.key"), Permissions::from_mode(0o600))?;
        let scenario = Self { folder: folder.to_owned(), rows };
        scenario.export(Day::First)?;
        Ok(scenario)
    }

    /// Has its plugins run in the program's own process, for tests that watch what it does: a library that is
    /// preloaded is not in its workers.
    ///
    /// # Errors
    /// Of the file system.
    pub fn keep_plugins_in_process(&self) -> Result<(), Failed> {
        let config = self.folder.join("reunion.toml");
        let text = fs::read_to_string(&config)?.replace("plugin = \"file\"", "plugin = \"file\"\nisolation = \"in-process\"");
        Ok(fs::write(config, text)?)
    }

    /// A copy in another folder, which must be empty or not there.
    ///
    /// # Errors
    /// Of the file system.
    pub fn copy(&self, folder: &Path) -> Result<Self, Failed> {
        copy(&self.folder, folder)?;
        Ok(Self { folder: folder.to_owned(), rows: self.rows })
    }

    /// Turns to the second day, after a run of the first: new exports, and one store's list came back
    /// with each of the results in it.
    ///
    /// # Errors
    /// Of the file system, and where the first day's run made no list of a store.
    pub fn turn_to_second_day(&self) -> Result<(), Failed> {
        self.export(Day::Second)?;
        let stores = fs::read_dir(self.out())?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
        let store = stores.into_iter().filter(|path| !path.ends_with("sms")).min().ok_or("no store has a work list")?;
        let list = fs::read_dir(&store)?.next().ok_or("a store's folder is empty")??.path();
        let text = fs::read_to_string(list)?;
        let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let result_at = reader.headers()?.iter().position(|name| name == "result").ok_or("a work list has no column result")?;
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(reader.headers()?)?;
        let mut results = ["added", "refused", "wrong_number", "do_not_call"].into_iter();
        for cells in reader.records() {
            let result = results.next().unwrap_or_default();
            let cells = cells?;
            writer.write_record(cells.iter().enumerate().map(|(at, cell)| if at == result_at { result } else { cell }))?;
        }
        self.put(&self.folder.join("returned/list.csv"), &writer.into_inner()?, Day::Second)
    }

    /// The command that runs a day's pipeline with a built `reunion`.
    pub fn once(&self, program: &Path, day: Day) -> Command {
        let mut command = Command::new(program);
        let now = match day {
            Day::First => "2026-09-21T22:13:20+08:00",
            Day::Second => "2026-10-22T22:13:20+08:00",
        };
        command.arg("--config").arg(self.folder.join("reunion.toml")).args(["--format", "json", "once", "--now", now]);
        command
    }

    /// Where the work lists are.
    pub fn out(&self) -> PathBuf {
        self.folder.join("out")
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// What the state and the work lists come to.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn dump(&self) -> Result<Dump, Failed> {
        Dump::read(&self.state(), MASTER_KEY, &self.out())
    }

    /// The files of segments that were committed and are in no generation yet.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn pending_files(&self) -> Result<Vec<String>, Failed> {
        dump::pending_files(&self.state(), MASTER_KEY)
    }

    fn export(&self, day: Day) -> Result<(), Failed> {
        let changed = if day == Day::First { 0.0 } else { 0.1 };
        let mut made = make(&Plan { rows: self.rows, seed: 7, stores: 3, changed, unreadable: false });
        for (export, (encoding, files)) in made.exports.iter_mut().zip([(Encoding::Gb18030, 3), (Encoding::Utf8, 2)]) {
            // One row of fifty is only in one of the two days, and some cards change hands.
            let absent = if day == Day::First { 7 } else { 23 };
            if day == Day::Second {
                for at in (30..export.rows.len()).step_by(40) {
                    export.rows[at][2] = export.rows[at - 1][2].clone();
                }
            }
            let mut at = 0;
            export.rows.retain(|_| {
                at += 1;
                at % 50 != absent
            });
            let rows = std::mem::take(&mut export.rows);
            for (number, rows) in rows.chunks(rows.len().div_ceil(files).max(1)).enumerate() {
                let part = Export { name: export.name, header: export.header, rows: rows.to_vec() };
                let path = self.folder.join(format!("in/{}-{}.csv", export.name, number + 1));
                self.put(&path, &file(&part, encoding, number == 0)?, day)?;
            }
        }
        Ok(())
    }

    /// Writes a file as of an hour before the run of the day.
    fn put(&self, path: &Path, bytes: &[u8], day: Day) -> Result<(), Failed> {
        fs::write(path, bytes)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(day.secs() - 3600)?);
        Ok(File::options().write(true).open(path)?.set_modified(time)?)
    }
}

/// Copies a folder with the times of its files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let file = File::open(&target)?;
            file.set_modified(entry.metadata()?.modified()?)?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}
