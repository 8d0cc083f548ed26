//! The config as types. Defaults, ranges and docs of the keys are in [`super::keys`]; by the time serde
//! fills these, every key was checked against that table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use indexmap::IndexMap;
use jiff::civil;
use jiff::tz::TimeZone;
use reunion_host::Isolation;
use reunion_model::plugin::ReadMode;
use reunion_model::schema::{ColumnType, Rule};
use serde::{Deserialize, Deserializer, de};

/// A timezone by its IANA name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// The rules of the timezone.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }

    /// Its IANA name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zone = TimeZone::get(text).map_err(|_| format!("there is no timezone `{text}`"))?;
        if zone.iana_name().is_none() {
            return Err(format!("`{text}` is no name of a timezone"));
        }
        Ok(Self(zone))
    }
}

/// Times to start at, as five fields of cron in the config's timezone.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule(Box<Cron>);

impl Schedule {
    /// The pattern, which finds the next time from a zoned time of jiff.
    pub fn cron(&self) -> &Cron {
        &self.0
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(format!("it has {fields} {}", if fields == 1 { "field" } else { "fields" }));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        parser.parse(text).map(|cron| Self(Box::new(cron))).map_err(|error| {
            let error = error.to_string();
            error.rsplit(": ").next().unwrap_or(&error).trim_end_matches('.').to_lowercase()
        })
    }
}

/// When a source is read whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Sweep {
    /// Not at all.
    Never,
    /// At these times.
    At(Schedule),
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" { Ok(Self::Never) } else { text.parse().map(Self::At) }
    }
}

/// A time of day, `09:00` or `09:00:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(pub civil::Time);

impl FromStr for Clock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let well_formed = matches!(text.len(), 5 | 8) && text.bytes().enumerate().all(|(at, byte)| (at % 3 == 2) == (byte == b':'));
        let time = text.parse::<civil::Time>().ok().filter(|_| well_formed);
        time.map(Self).ok_or_else(|| format!("`{text}` is no time of day"))
    }
}

/// An address of this machine, and a port of it; 0 is any that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "it is no address with a port".to_owned())
    }
}

macro_rules! from_text {
    ($($name:ty),+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}
from_text!(Zone, Schedule, Sweep, Clock, Ledger, Address);

/// `[state]`: where everything is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// The store of actions.
    pub ledger: Ledger,
    /// Where the master key is.
    pub key: KeySource,
    /// How long to wait for another daemon's lease.
    pub lease_wait_secs: u64,
    /// How many generations are kept beside those that are in use.
    pub keep_generations: u32,
}

/// The store of actions.
#[derive(Clone, PartialEq, Eq)]
pub enum Ledger {
    /// SQLite in the state's folder.
    Sqlite,
    /// PostgreSQL at this URL.
    Postgres(String),
}

impl FromStr for Ledger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Self::Postgres(url.to_owned())),
            _ => Err("it is neither \"sqlite\" nor a URL that begins with postgres://".to_owned()),
        }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "Sqlite",
            Self::Postgres(_) => "Postgres(…)",
        })
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// A systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A file, absolute.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
}

/// `[plugins]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugins {
    /// Folders to look in first, absolute.
    pub path: Vec<PathBuf>,
}

/// `[sources.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The plugin that reads it.
    pub plugin: String,
    /// What a row means that is not there any more.
    #[serde(deserialize_with = "read_mode")]
    pub mode: ReadMode,
    /// When an incremental source is read whole.
    pub sweep: Option<Sweep>,
    /// How far before the cursor an incremental pull begins.
    pub overlap_secs: u64,
    /// Older data than this contacts nobody.
    pub max_age_hours: u32,
    /// The greatest share of the live rows that one snapshot may delete.
    pub deleted_share_max: f64,
    /// The timezone of times without one; the config's where there is none.
    pub timezone: Option<Zone>,
    /// The columns that tell rows apart where none is mapped to `record_id`. Empty: the phone.
    pub key: Vec<String>,
    /// What is mapped by hand: our name to the source's column.
    pub columns: IndexMap<String, Column>,
    /// Where the plugin runs.
    #[serde(deserialize_with = "isolation")]
    pub isolation: Isolation,
    /// The only library that is loaded, by its sha256.
    pub sha256: Option<String>,
    /// What the plugin may take.
    pub limits: PluginLimits,
    /// The plugin's own keys are read with [`super::Config::with_values`].
    #[serde(rename = "with")]
    _with: de::IgnoredAny,
}

/// What the plugin of a component may take.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginLimits {
    /// Memory, in mebibytes.
    pub memory_mib_max: u64,
    /// Open files.
    pub open_files_max: u64,
    /// Time for an answer.
    pub answer_secs_max: u64,
    /// Restarts within an hour.
    pub restarts_per_hour_max: u32,
}

impl From<PluginLimits> for reunion_host::Limits {
    fn from(limits: PluginLimits) -> Self {
        Self {
            memory_bytes_max: limits.memory_mib_max << 20,
            open_files_max: limits.open_files_max,
            answer_within: Duration::from_secs(limits.answer_secs_max),
            restarts_per_hour_max: limits.restarts_per_hour_max,
        }
    }
}

fn isolation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Isolation, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "process" => Ok(Isolation::Process),
        "in-process" => Ok(Isolation::InProcess),
        other => Err(de::Error::custom(format!("`{other}` is no isolation"))),
    }
}

fn read_mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReadMode, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "incremental" => Ok(ReadMode::Incremental),
        "snapshot" => Ok(ReadMode::Snapshot),
        other => Err(de::Error::custom(format!("`{other}` is no mode"))),
    }
}

/// A column that is mapped by hand.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The source's name for it.
    pub from: String,
    /// Its type, where it is declared.
    #[serde(rename = "type")]
    pub kind: Option<ColumnType>,
    /// What amounts count in.
    pub unit: Option<Unit>,
    /// How times or days are written, by the conversions of strptime.
    pub format: Option<String>,
    /// The timezone of times without one.
    pub timezone: Option<Zone>,
    /// The source's own words and what they mean.
    #[serde(default)]
    pub values: IndexMap<String, String>,
}

/// What an amount counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Yuan with up to two places.
    Yuan,
    /// Hundredths of a yuan.
    Fen,
}

/// `[phone]`: what the rules of numbers cannot know.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phone {
    /// Numbers that were typed in for want of a real one.
    pub placeholders: Vec<String>,
    /// First digits of numbers that are taken as a person's mobile number though the table does not have them.
    pub allow_prefixes: Vec<String>,
    /// First digits of numbers that are refused though the table has them.
    pub deny_prefixes: Vec<String>,
}

/// `[identity]`: who is who.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What makes rows one member, the surest first: each the columns whose values must all be equal.
    pub keys: Vec<Vec<String>>,
    /// What the values of a key's column may mean, where it is not the default.
    pub limits: IndexMap<String, KeyLimits>,
    /// What a number on several cards means.
    pub shared_phone: SharedPhone,
    /// How a column's value is chosen, where it is not the default.
    pub survivorship: IndexMap<String, Rule>,
}

/// `[identity.limits.<column>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// A value on more rows joins none of them.
    pub records_max: u32,
    /// A member has no more values.
    pub values_max: u32,
    /// Values that never join.
    pub blocked: Vec<String>,
}

impl KeyLimits {
    /// `records_max` where it is not given.
    pub const RECORDS_MAX: u32 = 50;
    /// `values_max` where it is not given.
    pub const VALUES_MAX: u32 = 10;
}

/// `[identity.shared_phone]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPhone {
    /// A number on more cards is nobody's.
    pub cards_max: u32,
    /// The same where all cards have one name.
    pub same_name_cards_max: u32,
    /// Days without a purchase after which another name is another person; 0 is never.
    pub recycled_after_days: u32,
    /// What becomes of cards with different names on one number.
    pub policy: SharedPolicy,
}

/// What becomes of cards with different names on one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedPolicy {
    /// One member.
    Merge,
    /// A member for each name.
    Household,
    /// Set aside.
    Quarantine,
}

/// `[guards]`: how much a run may differ from the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guards {
    /// Runs that it is compared with.
    pub runs: u32,
    /// How much more of the members may be merged.
    pub merged_share_margin: f64,
    /// How many more may be new.
    pub new_share_margin: f64,
    /// How much more of the rows may be in quarantine.
    pub quarantined_share_margin: f64,
    /// How many more rows one member may have.
    pub largest_member_margin: u64,
}

/// `[tags.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The rule.
    pub when: String,
}

/// `[campaigns.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Campaign {
    /// Whether it plans tasks.
    pub enabled: bool,
    /// The rule that chooses members.
    pub audience: String,
    /// The channel that its tasks go to.
    pub channel: String,
    /// The share that is never contacted, to compare with.
    pub holdout: f64,
    /// How often a member is contacted at most.
    pub touches_max: u32,
    /// Days between two touches; there where `touches_max` is more than 1.
    pub gap_days: Option<u32>,
    /// Tasks of one run at most.
    pub per_run_max: u32,
    /// Tasks of one store and day at most.
    pub per_store_per_day_max: u32,
    /// When tasks are planned and sent; any time where there is none.
    pub window: Option<Window>,
    /// The template of the message.
    pub message: Option<String>,
    /// The template of the reason that the clerk sees.
    pub reason: Option<String>,
    /// Days until a task is due.
    pub due_days: Option<u32>,
}

/// `[campaigns.<name>.window]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// From this time of day on.
    pub from: Clock,
    /// Until just before this one.
    pub to: Clock,
    /// On these days, in the order of the config.
    pub days: Vec<Day>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// The same day in jiff's words.
    pub const fn weekday(self) -> civil::Weekday {
        match self {
            Self::Mon => civil::Weekday::Monday,
            Self::Tue => civil::Weekday::Tuesday,
            Self::Wed => civil::Weekday::Wednesday,
            Self::Thu => civil::Weekday::Thursday,
            Self::Fri => civil::Weekday::Friday,
            Self::Sat => civil::Weekday::Saturday,
            Self::Sun => civil::Weekday::Sunday,
        }
    }
}

/// `[channels.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The plugin that it is.
    pub plugin: String,
    /// How often a task is tried.
    pub attempts_max: u32,
    /// The delay before the second try, where the channel names none; it doubles with each further one.
    pub retry_secs: u64,
    /// The longest delay between two tries.
    pub retry_secs_max: u64,
    /// Tasks that it is given on one day at most.
    pub per_day_max: Option<usize>,
    /// Where the plugin runs.
    #[serde(deserialize_with = "isolation")]
    pub isolation: Isolation,
    /// The only library that is loaded, by its sha256.
    pub sha256: Option<String>,
    /// What the plugin may take.
    pub limits: PluginLimits,
    /// The plugin's own keys are read with [`super::Config::with_values`].
    #[serde(rename = "with")]
    _with: de::IgnoredAny,
}

/// `[pipelines.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The sources that it pulls.
    pub sources: Vec<String>,
    /// The campaigns that it plans.
    pub campaigns: Vec<String>,
    /// When `run` starts it; without one only `once` does.
    pub schedule: Option<Schedule>,
}

/// `[testing]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Testing {
    /// Whether `--now` is allowed.
    pub clock: bool,
}

/// `[http]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where requests are taken; nowhere where there is none.
    pub listen: Option<Address>,
    /// How long an answer may take.
    pub answer_secs_max: u64,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How long `once` waits for retries, and `run` for its end.
    pub drain_secs: u64,
    /// How often a pull commits what it has read.
    pub commit_secs: u64,
    /// Rows that `query` answers with at most.
    pub query_rows_max: usize,
    /// Memory that rules and queries may use.
    pub query_memory_mib: usize,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least important level that is written.
    pub level: LogLevel,
    /// How a line is written.
    pub format: LogFormat,
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The directive of a tracing filter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_two_digits_each() {
        assert!("09:00".parse::<Clock>() < "20:30:01".parse::<Clock>());
        for text in ["9:00", "09.00", "25:00", "", "0900", "09:00:0", "09:60"] {
            assert!(text.parse::<Clock>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_schedule_has_five_fields() {
        assert!("0 6 * * *".parse::<Schedule>().is_ok());
        for text in ["", "0 6 * *", "0 0 6 * * *", "61 6 * * *", "daily"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
        assert_eq!("never".parse(), Ok(Sweep::Never));
    }

    #[test]
    fn an_address_has_a_port_and_no_name() {
        assert!("127.0.0.1:8470".parse::<Address>().is_ok() && "[::1]:0".parse::<Address>().is_ok());
        for text in ["", "8470", "127.0.0.1", "localhost:8470", "::1:8470", "127.0.0.1:99999"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_ledgers_url_is_not_shown() {
        let ledger: Ledger = "postgres://u:secret@h/db".parse().expect("a ledger");
        assert_eq!(format!("{ledger:?}"), "Postgres(…)");
    }
}
