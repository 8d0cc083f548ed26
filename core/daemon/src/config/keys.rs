//! Every key of the config: its type, its range, its default, and what it means. The check of a
//! config, its defaults and the reference page all come from this one table.

use reunion_model::schema::{ColumnType, Survivorship};

/// A key of the config.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The tables it is in and its name, dotted; `<name>` stands for a name of the operator's.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds where it is not there.
    pub need: Need,
    /// What it means. Sentences.
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A table with keys of its own.
    Table,
    /// A table with exactly one of its keys.
    Choice,
    /// A table whose keys are names of the operator's.
    Map(NameRule),
    /// A table with keys of its own, or text that stands for a table with this key alone.
    TableOrText(&'static str),
    /// A table that a plugin checks.
    With,
    /// Text that is not empty.
    Text,
    /// A list of such texts.
    Texts,
    /// A list whose items are each such a text, or several in a list.
    Combinations,
    /// A file or folder. Relative ones are relative to the file that names them.
    Path,
    /// A list of them, or one.
    Paths,
    /// A whole number in this range.
    Integer(i64, i64),
    /// A number in this range.
    Number(f64, f64),
    /// True or false.
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of some of these words.
    Words(&'static [&'static str]),
    /// A timezone by its IANA name.
    Zone,
    /// Five fields of cron.
    Cron,
    /// The same, or "never".
    Sweep,
    /// A time of day.
    Clock,
    /// `sqlite` or a URL of PostgreSQL.
    Ledger,
    /// An address of this machine with a port.
    Address,
}

/// What names the operator may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// Components and campaigns: `a-z`, `0-9`, `-` and `_`, a letter first.
    Component,
    /// Tags, which are names in rules: the same without `-`.
    Identifier,
    /// Columns: anything that a source may call them.
    Column,
    /// A value of a source: anything.
    Word,
}

/// What holds where a key is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// That is an error.
    Required,
    /// Nothing; the docs of the key say what that means.
    Optional,
    /// This, as TOML.
    Default(&'static str),
}

use Kind::{
    Address, Boolean, Choice, Clock, Combinations, Cron, Integer, Ledger, Map, Number, Path, Paths, Sweep, Table, TableOrText, Text, Texts,
    With, Word, Words, Zone,
};
use Need::{Default, Optional, Required};

const fn key(path: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { path, kind, need, doc }
}

/// The names of the types of columns.
const TYPES: &[&str] = &{
    let mut names = [""; ColumnType::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = ColumnType::ALL[at].name();
        at += 1;
    }
    names
};
/// The rules that a column may be given.
const RULES: &[&str] = &{
    let mut names = [""; Survivorship::CHOICES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Survivorship::CHOICES[at].name();
        at += 1;
    }
    names
};
const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A year, the longest time that a key takes.
const YEAR_SECS: i64 = 366 * 24 * 3600;
const COUNT_MAX: i64 = 1_000_000_000;

/// Every key, each table before its keys, in the order of the reference page.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("timezone", Zone, Default("\"Asia/Shanghai\""), "Where days begin and end: in rules, schedules, windows and file names, and for times of sources that name no timezone."),

    key("state", Table, Required, "Where everything is kept."),
    key("state.dir", Path, Default("\"/var/lib/reunion\""), "The folder of the state. Made where it is missing, for its owner alone."),
    key("state.ledger", Ledger, Default("\"sqlite\""), "The store of runs, tasks, receipts and consents: `sqlite`, in the state's folder, or a PostgreSQL URL (`postgres://reunion@db.internal/reunion`) that several daemons share. Keep its password in a `.pgpass` file."),
    key("state.key", Choice, Required, "Where the master key is, which the whole state is encrypted under: 64 hex digits, made by `reunion key new`. One of the three keys below."),
    key("state.key.credential", Text, Optional, "A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`."),
    key("state.key.file", Path, Optional, "A file that nobody but its owner can read."),
    key("state.key.env", Text, Optional, "A variable of the environment."),
    key("state.lease_wait_secs", Integer(0, 3600), Default("20"), "How long to wait for another daemon to give up the state, with PostgreSQL. A lease whose holder died is free after 15 seconds."),
    key("state.keep_generations", Integer(1, 1000), Default("3"), "How many generations of the members are kept to roll back to."),

    key("plugins", Table, Default("{}"), "The plugins."),
    key("plugins.path", Paths, Default("[]"), "Folders to look in before the folder of the executable, `plugins/` beside it, and `/usr/lib/reunion/plugins`."),

    key("sources", Map(NameRule::Component), Default("{}"), "Where members come from. At most 64."),
    key("sources.<name>", Table, Optional, "One source. Its name stands in reports, rules of survivorship and the state; `reunion sources rename` changes it."),
    key("sources.<name>.plugin", Text, Required, "The plugin that reads it: `file` is the library `libreunion_source_file.so`."),
    key("sources.<name>.mode", Word(&["snapshot", "incremental"]), Default("\"snapshot\""), "`snapshot`: each pull gives every row, and a row that is missing was deleted. `incremental`: a pull gives what is new or changed, and a row that is missing is still there."),
    key("sources.<name>.sweep", Sweep, Optional, "When an incremental source is read whole, to find deletions and late changes: five fields of cron, or `never`, which must be said. Not for snapshots. The first run after that moment reads it whole; `once --sweep SOURCE` does so at any time."),
    key("sources.<name>.overlap_secs", Integer(0, YEAR_SECS), Default("900"), "How far before the last cursor an incremental pull begins, so that rows committed late are not missed. For sources whose cursor is a time, as the plugin `sql` has; files have none."),
    key("sources.<name>.max_age_hours", Integer(1, 8784), Default("48"), "Data older than this contacts nobody."),
    key("sources.<name>.deleted_share_max", Number(0.0, 1.0), Default("0.05"), "A snapshot that would delete a greater share of the source's rows is refused; `once --accept SOURCE` takes it once."),
    key("sources.<name>.timezone", Zone, Optional, "The timezone of times that name none; without it the config's."),
    key("sources.<name>.key", Texts, Default("[]"), "For a source with no column mapped to `record_id`: the columns, by our names, that tell its rows apart. Empty: `phone`. Rows with equal ones are quarantined."),
    key("sources.<name>.columns", Map(NameRule::Column), Default("{}"), "Our name of a column and the source's. A source's column that has a name of ours needs no line, and further ones keep their names as text."),
    key("sources.<name>.columns.<column>", TableOrText("from"), Optional, "The source's name, or a table of the keys below."),
    key("sources.<name>.columns.<column>.from", Text, Required, "The source's name of the column."),
    key("sources.<name>.columns.<column>.type", Word(TYPES), Optional, "The type of a further column; those with a name of ours have theirs. Fixed at the first commit."),
    key("sources.<name>.columns.<column>.unit", Word(&["yuan", "fen"]), Optional, "What an amount counts in; `yuan` where nothing is said."),
    key("sources.<name>.columns.<column>.format", Text, Optional, "How a time or day is written, by the conversions of strptime: `%d/%m/%Y %H:%M`. Without it RFC 3339, with `T` or a space."),
    key("sources.<name>.columns.<column>.timezone", Zone, Optional, "The timezone of times in this column that name none; without it the source's."),
    key("sources.<name>.columns.<column>.values", Map(NameRule::Word), Optional, "The source's words and what they mean: `{ \"女\" = \"female\" }`. Other words stay as they are."),
    key("sources.<name>.columns.<column>.values.<word>", Text, Optional, "What the word means."),
    key("sources.<name>.isolation", Word(&["process", "in-process"]), Default("\"process\""), "Where the plugin runs. `process`: in one of its own, so that whatever it does costs this source and nothing else. `in-process`: in the daemon's, whose end a crash of it is, and where only `limits.answer_secs_max` and `limits.restarts_per_hour_max` hold."),
    key("sources.<name>.sha256", Text, Optional, "The sha256 of the plugin's library, 64 hex digits as `sha256sum` prints them. No other library is loaded."),
    key("sources.<name>.limits", Table, Default("{}"), "What the plugin may take. One that takes more is ended, and started again."),
    key("sources.<name>.limits.memory_mib_max", Integer(16, 1 << 20), Default("1024"), "Memory of the plugin's process, with those that it has started, in mebibytes."),
    key("sources.<name>.limits.open_files_max", Integer(32, 1 << 20), Default("1024"), "Files and sockets that it may have open."),
    key("sources.<name>.limits.answer_secs_max", Integer(1, 7 * 86_400), Default("7200"), "How long an answer may take: a check, or the next part of a stream."),
    key("sources.<name>.limits.restarts_per_hour_max", Integer(0, 1000), Default("5"), "How often within an hour it is started again after it failed: after 1 s, 2 s, 4 s and so on. Beyond that it is left alone until the first failure is an hour old."),
    key("sources.<name>.with", With, Default("{}"), "The plugin's own keys: `reunion plugins show file` lists them."),

    key("phone", Table, Default("{}"), "What the rules of phone numbers cannot know."),
    key("phone.placeholders", Texts, Default("[\"13800000000\", \"13000000000\", \"13900000000\", \"11111111111\", \"12345678901\", \"13888888888\", \"18888888888\"]"), "Numbers of eleven digits that clerks type for want of a real one. Their rows are quarantined."),
    key("phone.allow_prefixes", Texts, Default("[]"), "First digits, three to seven, of mobile numbers that the built-in table does not have yet."),
    key("phone.deny_prefixes", Texts, Default("[]"), "First digits, three to seven, of numbers to refuse though the built-in table has them."),

    key("identity", Table, Default("{}"), "Who is who."),
    key("identity.keys", Combinations, Default("[\"phone\"]"), "Columns whose equal values make rows one member, the surest first. `phone` is one of them. Several in a list of their own must all be equal: `[\"phone\", \"unionid\", [\"name\", \"birthday\", \"store\"]]`."),
    key("identity.limits", Map(NameRule::Column), Default("{}"), "What the values of a key's column may mean. The defaults hold for every key."),
    key("identity.limits.<column>", Table, Optional, "Limits of one column that `keys` names."),
    key("identity.limits.<column>.records_max", Integer(2, 100_000), Default("50"), "A value on more rows is nobody's, such as a till's own card, and joins none of them. For several columns together the smallest counts. The phone has `shared_phone.cards_max` instead."),
    key("identity.limits.<column>.values_max", Integer(1, 10_000), Default("10"), "A member has no more different values than this: rows that would bring more together stay apart, those of the surest keys and the oldest rows going first. 1 for a column that a person has once in a lifetime. Holds for a column that is a key by itself."),
    key("identity.limits.<column>.blocked", Texts, Default("[]"), "Values that never join, such as what clerks type for want of a real one. For the phone there is `[phone] placeholders`."),
    key("identity.shared_phone", Table, Default("{}"), "What a number on several cards means."),
    key("identity.shared_phone.cards_max", Integer(1, 10_000), Default("5"), "A number on more cards is a cashier's or the store's own, and all its rows are quarantined."),
    key("identity.shared_phone.same_name_cards_max", Integer(1, 10_000), Default("50"), "The same where every card has one and the same name, and birthdays do not differ: one person with a card in each store."),
    key("identity.shared_phone.recycled_after_days", Integer(0, 36_600), Default("365"), "A number on which nobody bought for longer than this, and which then comes with another name, is another person's. The one who had it before is quarantined unless another key leads to them. 0: never; the policy decides."),
    key("identity.shared_phone.policy", Word(&["merge", "household", "quarantine"]), Default("\"merge\""), "Cards with different names, or one name and different birthdays, on one number: `merge` makes one member of them, `household` one of each, `quarantine` sets them aside."),
    key("identity.survivorship", Map(NameRule::Column), Default("{}"), "How a member's value of a column is chosen from its rows, where the default is not wanted. The page on columns has the defaults; further columns take the most recent."),
    key("identity.survivorship.<column>", TableOrText("rule"), Optional, "A rule of [the page on columns](columns.md#how-a-value-is-chosen), `level = \"first\"`, or a table for one that needs more: `name = { rule = \"source_priority\", sources = [\"crm\", \"pos\"] }`."),
    key("identity.survivorship.<column>.rule", Word(RULES), Required, "The rule."),
    key("identity.survivorship.<column>.sources", Texts, Optional, "For `source_priority`, which needs them: sources, the one to believe first. Others come after them."),
    key("identity.survivorship.<column>.separator", Text, Optional, "For `union`: what stands between two values, in the sources and in the member. Without it `;`."),

    key("guards", Table, Default("{}"), "How much a run may differ from the last ones before it is stopped and nothing of it is kept. Each value may be as great as the greatest of those runs and this much more; states of less than 1000 members are not compared. `once --accept guards.merged_share` and the like takes a run once."),
    key("guards.runs", Integer(1, 100), Default("10"), "The last runs that count, without those that were accepted."),
    key("guards.merged_share_margin", Number(0.0, 1.0), Default("0.02"), "Members that are merged into others, as a share of all: a key that joins strangers shows here."),
    key("guards.new_share_margin", Number(0.0, 1000.0), Default("0.30"), "Members that are new, as a share of those there are. A source that is read for the first time is let pass."),
    key("guards.quarantined_share_margin", Number(0.0, 1.0), Default("0.05"), "Rows in quarantine, as a share of all rows. A source that is read for the first time is let pass."),
    key("guards.largest_member_margin", Integer(0, COUNT_MAX), Default("50"), "Rows of the largest member that changed."),

    key("tags", Map(NameRule::Identifier), Default("{}"), "Names for kinds of members. A tag gives rules and templates two columns: `x`, true or false, and `x_since`."),
    key("tags.<name>", Table, Optional, "One tag. It may name tags above it; `conf.d` comes after the main file."),
    key("tags.<name>.when", Text, Required, "A SQL condition on a member's columns: `last_order_at < now() - interval '180 days'`. Null counts as false."),

    key("campaigns", Map(NameRule::Component), Default("{}"), "Who is contacted, why, and how often."),
    key("campaigns.<name>", Table, Optional, "One campaign. Its name decides the control group and who was contacted; `reunion campaigns rename` changes it."),
    key("campaigns.<name>.enabled", Boolean, Default("true"), "Whether it plans tasks. Switching it off takes back those not sent yet."),
    key("campaigns.<name>.audience", Text, Required, "A SQL condition on a member's columns and tags: `phone_only and dormant and store is not null`."),
    key("campaigns.<name>.channel", Text, Required, "The channel that its tasks go to."),
    key("campaigns.<name>.holdout", Number(0.0, 1.0), Default("0.10"), "The share of the audience that is never contacted, so that the effect can be measured. `0.10` is 10 %."),
    key("campaigns.<name>.touches_max", Integer(1, 100), Default("1"), "How often a member is contacted at most."),
    key("campaigns.<name>.gap_days", Integer(1, 3660), Optional, "Days between two touches. Needed when `touches_max` is more than 1."),
    key("campaigns.<name>.per_run_max", Integer(1, COUNT_MAX), Default("5000"), "Tasks that one run plans at most; the others wait for a later run."),
    key("campaigns.<name>.per_store_per_day_max", Integer(1, COUNT_MAX), Default("50"), "Tasks that one store gets on one day at most."),
    key("campaigns.<name>.window", Table, Optional, "When tasks are planned and sent, in the config's timezone. Without it at any time."),
    key("campaigns.<name>.window.from", Clock, Required, "From this time of day on."),
    key("campaigns.<name>.window.to", Clock, Required, "Until just before this one, on the same day."),
    key("campaigns.<name>.window.days", Words(DAYS), Default("[\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]"), "On these days."),
    key("campaigns.<name>.message", Text, Optional, "Template of the message, with the member's columns as variables: `{{ name }}`."),
    key("campaigns.<name>.reason", Text, Optional, "Template of what the clerk is told about the member."),
    key("campaigns.<name>.due_days", Integer(1, 366), Optional, "Days from the run until the task is due. Without it there is no due day."),

    key("channels", Map(NameRule::Component), Default("{}"), "How members are reached."),
    key("channels.<name>", Table, Optional, "One channel."),
    key("channels.<name>.plugin", Text, Required, "The plugin that it is: `file` is the library `libreunion_channel_file.so`."),
    key("channels.<name>.attempts_max", Integer(1, 100), Default("5"), "How often a task is tried before it counts as failed."),
    key("channels.<name>.retry_secs", Integer(1, 86_400), Default("30"), "The delay before a second try where the channel names none; it doubles with each further one."),
    key("channels.<name>.retry_secs_max", Integer(1, 7 * 86_400), Default("3600"), "The longest delay between two tries."),
    key("channels.<name>.per_day_max", Integer(1, COUNT_MAX), Optional, "Tasks that the channel is given on one day at most, of all campaigns; the others wait for the next day. Without it there is no limit."),
    key("channels.<name>.isolation", Word(&["process", "in-process"]), Default("\"process\""), "Where the plugin runs. `process`: in one of its own, so that whatever it does costs this channel and nothing else. `in-process`: in the daemon's, whose end a crash of it is, and where only `limits.answer_secs_max` and `limits.restarts_per_hour_max` hold."),
    key("channels.<name>.sha256", Text, Optional, "The sha256 of the plugin's library, 64 hex digits as `sha256sum` prints them. No other library is loaded."),
    key("channels.<name>.limits", Table, Default("{}"), "What the plugin may take. One that takes more is ended, and started again."),
    key("channels.<name>.limits.memory_mib_max", Integer(16, 1 << 20), Default("1024"), "Memory of the plugin's process, with those that it has started, in mebibytes."),
    key("channels.<name>.limits.open_files_max", Integer(32, 1 << 20), Default("1024"), "Files and sockets that it may have open."),
    key("channels.<name>.limits.answer_secs_max", Integer(1, 7 * 86_400), Default("600"), "How long an answer may take: a check, or the next part of a stream."),
    key("channels.<name>.limits.restarts_per_hour_max", Integer(0, 1000), Default("5"), "How often within an hour it is started again after it failed: after 1 s, 2 s, 4 s and so on. Beyond that it is left alone until the first failure is an hour old."),
    key("channels.<name>.with", With, Default("{}"), "The plugin's own keys: `reunion plugins show file` lists them."),

    key("pipelines", Map(NameRule::Component), Default("{}"), "What runs together, and when."),
    key("pipelines.<name>", Table, Optional, "One pipeline."),
    key("pipelines.<name>.sources", Texts, Required, "The sources that it pulls."),
    key("pipelines.<name>.campaigns", Texts, Default("[]"), "The campaigns that it plans."),
    key("pipelines.<name>.schedule", Cron, Optional, "When `reunion run` starts it: five fields of cron (`0 6 * * *`), in the config's timezone. Without it only `reunion once` does."),

    key("http", Table, Default("{}"), "Requests from outside, which `reunion run` takes: at `/callback/<channel>` what platforms and programs report to a channel whose plugin answers them, at `/health` whether the daemon is ready."),
    key("http.listen", Address, Optional, "Where it listens: an address of this machine and a port, such as `127.0.0.1:8470`. Without it nothing listens. It speaks no TLS: a reverse proxy stands before it."),
    key("http.answer_secs_max", Integer(1, 60), Default("4"), "How long an answer may take; then it is 503, and the sender tries again. Senders wait for a few seconds, often five."),

    key("limits", Table, Default("{}"), "How much and how long."),
    key("limits.drain_secs", Integer(0, 3600), Default("60"), "How long `once` waits for retries that are due, and `run` for work under way when it is told to stop."),
    key("limits.commit_secs", Integer(0, 600), Default("10"), "How often a pull commits what it has read: what a crash costs at most. 0: wherever it can go on from."),
    key("limits.query_rows_max", Integer(1, 100_000_000), Default("100000"), "Rows that `query` answers with at most."),
    key("limits.query_memory_mib", Integer(16, 1 << 20), Default("256"), "Memory that a `query` may use, in mebibytes."),

    key("log", Table, Default("{}"), "The log, on standard error."),
    key("log.level", Word(&["error", "warn", "info", "debug", "trace"]), Default("\"info\""), "The least important level that is written."),
    key("log.format", Word(&["text", "json"]), Default("\"text\""), "`text` for people, `json` for collectors."),

    key("testing", Table, Default("{}"), "For rehearsals."),
    key("testing.clock", Boolean, Default("false"), "Allows `--now`, and refuses channels that reach beyond files and this machine."),
];

impl Key {
    /// The path of the table that it is in; empty for the root.
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }

    /// Its last name.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// Whether its name is the operator's to choose.
    pub fn is_named_by_operator(&self) -> bool {
        self.name().starts_with('<')
    }
}

/// The keys of the table with this path; empty for the root.
pub fn children(table: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.parent() == table)
}

impl Kind {
    /// What it takes, in words that follow "expected".
    pub fn expected(&self) -> String {
        match self {
            Table | Map(_) | With => "a table".to_owned(),
            Choice => "a table with one key".to_owned(),
            TableOrText(_) => "text or a table".to_owned(),
            Text => "text".to_owned(),
            Texts => "a list of texts".to_owned(),
            Combinations => "a list whose items are texts or lists of texts".to_owned(),
            Path => "a path".to_owned(),
            Paths => "a list of paths".to_owned(),
            Integer(min, max) => format!("a whole number from {min} to {max}"),
            Number(min, max) => format!("a number from {min} to {max}"),
            Boolean => "true or false".to_owned(),
            Word(words) => one_of(words),
            Words(words) => format!("a list with some of {}", quoted(words)),
            Zone => "the name of a timezone, such as \"Asia/Shanghai\"".to_owned(),
            Cron => "five fields of cron, such as \"0 6 * * *\"".to_owned(),
            Sweep => "five fields of cron, such as \"0 3 * * *\", or \"never\"".to_owned(),
            Clock => "a time of day, such as \"09:00\"".to_owned(),
            Ledger => "\"sqlite\" or a PostgreSQL URL".to_owned(),
            Address => "an address and a port, such as \"127.0.0.1:8470\"".to_owned(),
        }
    }

    /// The same of an item of a list; of another kind what it takes itself.
    pub fn expected_item(&self) -> String {
        match self {
            Texts => Text.expected(),
            Combinations => "text or a list of texts".to_owned(),
            Paths => Path.expected(),
            Words(words) => one_of(words),
            _ => self.expected(),
        }
    }
}

/// A choice of words, as it follows "expected".
pub fn one_of(words: &[&str]) -> String {
    format!("one of {}", quoted(words))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once_and_after_its_table() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..at].iter().any(|other| other.path == key.path), "{}", key.path);
            let parent = key.parent();
            assert!(parent.is_empty() || KEYS[..at].iter().any(|other| other.path == parent), "{}", key.path);
            assert!(key.doc.ends_with('.'), "{}", key.path);
        }
    }
}
