//! A retailer with a good source and a good channel, and as many bad ones as a test wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use reunion_integration_tests::harness::{Ended, KEY, OPENING, Retailer, assert_sums, count, end, export, row};
use reunion_misbehaving::{Deed, Misbehaviour, PHONE, Stage, phone};
use reunion_model::plugin::PluginKind;
use serde_json::{Value, json};

use super::processes::{self, Process};

/// Rows of each bad source.
pub const ROWS: usize = 60;
/// Members of the good source, who are no one else's.
pub const MEMBERS: usize = 24;
/// Their stores.
const STORES: usize = 3;
/// What a plugin may take that is told to take more and more. It has a few dozen mebibytes before.
const MEMORY_MIB_MAX: u64 = 300;

/// The good ones, and what a config needs beside.
const GOOD: &str = r#"
[limits]
commit_secs = 0
drain_secs = DRAIN
[identity]
shared_phone = { cards_max = 10000 }
[sources.till]
plugin = "file"
[sources.till.with]
path = "till.csv"
settle_secs = 0
[campaigns.greet]
audience = "phone_only and starts_with(store, 'B')"
channel = "list"
holdout = 0.0
[channels.list]
plugin = "file"
[channels.list.with]
path = "out/{store}/{date}-{run}.csv"
"#;

/// One component that misbehaves, and has the misbehaviour's name.
#[derive(Clone, Copy)]
pub struct Case {
    pub kind: PluginKind,
    pub misbehaviour: &'static Misbehaviour,
    pub stage: Stage,
}

impl Case {
    pub fn name(&self) -> &'static str {
        self.misbehaviour.name
    }

    /// All of a stage, but for what is the same wherever it is done, or takes long: that is done at few stages here, and
    /// at all of them by [`super::again`].
    pub fn of(kind: PluginKind, stage: Stage) -> Vec<Self> {
        const SLOW: [&str; 3] = ["hang_cpu", "flood_log", "flood_stderr"];
        const HARMLESS: [&str; 8] = ["leak", "phone_in_log", "leak_threads", "kill_parent", "unload", "chdir", "env", "signal_handlers"];
        let is_main = matches!(stage, Stage::Item | Stage::Receipt | Stage::Destroy);
        let fits = |one: &&Misbehaviour| match one.name {
            name if SLOW.contains(&name) && !is_main => false,
            name if HARMLESS.contains(&name) && !is_main && stage != Stage::Create => false,
            // Half a minute: see `early`.
            "hang" if matches!(stage, Stage::Create | Stage::Describe) => false,
            _ => one.stages(kind).contains(&stage),
        };
        Misbehaviour::of(kind).filter(fits).map(|misbehaviour| Self { kind, misbehaviour, stage }).collect()
    }

    /// Whether a process survives it in itself. What it does to the whole process is no matter of components.
    pub fn is_survived_in_process(&self) -> bool {
        match self.misbehaviour.deed {
            Deed::Act(_) => matches!(self.name(), "panic" | "hang" | "leak" | "phone_in_log" | "signal_handlers"),
            _ => !matches!(self.name(), "garbage_length" | "garbage_offsets_end"),
        }
    }

    /// The file that is there once it has misbehaved.
    fn once(&self) -> String {
        format!("once/{}-{}", self.kind.name(), self.name())
    }

    /// Its component in the config.
    pub fn component(&self) -> String {
        format!("{}s.{}", self.kind.name(), self.name())
    }

    /// What it may take, so that a test does not wait for long.
    pub fn limits(&self) -> BTreeMap<&'static str, u64> {
        match self.name() {
            "allocate" => [("memory_mib_max", MEMORY_MIB_MAX)].into(),
            "hang" | "hang_cpu" => [("answer_secs_max", 1)].into(),
            _ => BTreeMap::new(),
        }
    }
}

/// A retailer with bad sources and bad channels.
pub struct Shop {
    pub retailer: Retailer,
    drain_secs: u64,
    sources: Vec<(String, String)>,
    channels: Vec<(String, String)>,
    is_in_process: bool,
    schedule: Option<&'static str>,
}

impl Shop {
    pub fn new() -> Self {
        let mut retailer = Retailer::new(OPENING);
        // Only so that the harness knows what must not be shown.
        let phones: Vec<_> = (0..ROWS).map(phone).chain([PHONE.to_owned()]).collect();
        retailer.write("phones.csv", &phones.join("\n"));
        fs::create_dir(retailer.path("once")).unwrap();
        fs::create_dir(retailer.path("counters")).unwrap();
        let mut shop = Self { retailer, drain_secs: 0, sources: Vec::new(), channels: Vec::new(), is_in_process: false, schedule: None };
        shop.write_till();
        shop
    }

    /// The good source's export, an hour old.
    pub fn write_till(&mut self) {
        let member = |at: usize| row(&format!("C{at}"), &format!("1390000{}", 2000 + at), "王", &format!("B{}", at % STORES));
        self.retailer.write("till.csv", &export((0..MEMBERS).map(member)));
    }

    /// The components that are told of from now on run in the program's own process.
    pub fn keep_in_process(&mut self) {
        self.is_in_process = true;
    }

    /// A component of the plugin that misbehaves: what stands in its own table, and in its `with` table.
    fn component(&self, table: &str, name: &str, limits: &BTreeMap<&str, u64>, own: &str, with: &str) -> String {
        let limits: String = limits.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let isolation = if self.is_in_process { "in-process" } else { "process" };
        let own = format!("plugin = \"misbehaving\"\nisolation = \"{isolation}\"\n{own}");
        format!("[{table}.{name}]\n{own}[{table}.{name}.limits]\n{limits}[{table}.{name}.with]\n{with}")
    }

    /// A source with [`ROWS`] rows.
    pub fn source(&mut self, name: &str, limits: &BTreeMap<&str, u64>, with: &str) {
        let with = format!("rows = {ROWS}\nbatch_rows = 15\nbatches_per_state = 1\n{with}");
        let text = self.component("sources", name, limits, "max_age_hours = 8784\n", &with);
        self.sources.push((name.to_owned(), text));
    }

    /// A channel, and a campaign that gives it all members of the good source, in several dispatches.
    pub fn channel(&mut self, name: &str, limits: &BTreeMap<&str, u64>, with: &str) {
        let with = format!("counter_file = \"counters/{name}\"\ndispatch_tasks_max = {}\n{with}", MEMBERS / 3);
        let text = self.component("channels", name, limits, "attempts_max = 100\nretry_secs = 1\n", &with);
        self.channels.push((name.to_owned(), text));
    }

    /// A source, or a channel, that misbehaves once.
    pub fn case(&mut self, case: &Case, further: &str) {
        let name = case.name();
        let after_rows = match name {
            // It is the first item that is missing.
            "no_begin" => 0,
            _ if case.kind == PluginKind::Channel => 4,
            _ => ROWS / 2,
        };
        let (at, once) = (case.stage.name(), case.once());
        let with = format!("do = \"{name}\"\nat = \"{at}\"\nafter_rows = {after_rows}\nonce_file = \"{once}\"\n{further}");
        match case.kind {
            PluginKind::Source => self.source(name, &case.limits(), &with),
            PluginKind::Channel => self.channel(name, &case.limits(), &with),
        }
    }

    /// All sources and channels but the good ones go.
    pub fn clear(&mut self) {
        self.sources.clear();
        self.channels.clear();
    }

    /// The component in whose part of the config a line is.
    pub fn component_at(&self, line: u64) -> String {
        let config = fs::read_to_string(self.retailer.path("reunion.toml")).unwrap();
        let lines: Vec<_> = config.lines().take(usize::try_from(line).unwrap()).collect();
        let header = lines.iter().rev().find_map(|line| line.strip_prefix('[')?.strip_suffix(']')).unwrap();
        header.split('.').take(2).collect::<Vec<_>>().join(".")
    }

    /// Fails where one has never got to where it misbehaves.
    #[track_caller]
    pub fn all_misbehaved(&self, cases: &[Case]) {
        let tame: Vec<_> = cases.iter().filter(|case| !self.retailer.path(&case.once()).exists()).map(Case::name).collect();
        assert_eq!(tame, [""; 0]);
    }

    /// How long a run waits for what falls due.
    pub fn drain(&mut self, secs: u64) {
        self.drain_secs = secs;
        self.write_config();
    }

    /// Has the daemon run it.
    pub fn schedule(&mut self, schedule: &'static str) {
        self.schedule = Some(schedule);
    }

    pub fn write_config(&mut self) {
        let names = |components: &[(String, String)]| components.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let (sources, channels) = (names(&self.sources), names(&self.channels));
        let mut config = format!("{OPENING}{}", GOOD.replace("DRAIN", &self.drain_secs.to_string()));
        for (_, text) in self.sources.iter().chain(&self.channels) {
            config.push_str(text);
        }
        for name in &channels {
            let _ = writeln!(
                config,
                "[campaigns.{name}]\naudience = \"phone_only and starts_with(store, 'B')\"\nchannel = \"{name}\"\nholdout = 0.0"
            );
        }
        let with_good = |good: &str, bad: &[String]| json!(std::iter::once(good).chain(bad.iter().map(String::as_str)).collect::<Vec<_>>());
        let schedule = self.schedule.map(|schedule| format!("schedule = \"{schedule}\"\n")).unwrap_or_default();
        let _ = writeln!(
            config,
            "[pipelines.daily]\n{schedule}sources = {}\ncampaigns = {}",
            with_good("till", &sources),
            with_good("greet", &channels)
        );
        self.retailer.set_config(&config);
    }

    /// The program, in a session of its own, by which everything that it has started can be found.
    pub fn command(&self, args: &[&str]) -> Command {
        let plain = self.retailer.command(args);
        let mut command = Command::new("setsid");
        command.arg(plain.get_program()).args(plain.get_args()).current_dir(self.retailer.path("."));
        // Workers have it too, and what they said last is in the sentences.
        command.env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs it to its end, which must be one of its own, and leaves no process behind.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ended {
        let ended = end(self.command(args));
        let said = said(&ended.stderr);
        self.shows_nothing(&ended.stdout);
        self.shows_nothing(&said);
        assert!(ended.code >= 0, "a signal ended {args:?}\n{said}");
        // What a worker has started is not a child of the program's: whoever is its parent now has to ask how it ended.
        let is_left = |process: &Process| process.session == ended.pid && process.state != 'Z';
        processes::none_is(&format!("{args:?} has ended and left processes behind"), is_left);
        Ended { stderr: said, ..ended }
    }

    /// Fails where a text shows a phone number or the master key, or tells that the program itself broke off.
    #[track_caller]
    pub fn shows_nothing(&self, text: &str) {
        self.retailer.shows_no_phone(text);
        assert!(!text.contains(KEY), "the master key is shown");
        // A plugin's own is told as what its process has printed, or is on a thread that is the plugin's.
        let is_plugins = |line: &&str| line.contains(" plugin::") || self.is_in_process && line.starts_with("thread 'call'");
        let own_panic = text.lines().filter(|line| line.contains("panicked at")).find(|line| !is_plugins(line));
        assert_eq!(own_panic, None, "the program broke off\n{text}");
    }

    /// `once`, which ends with 4 if something failed; its report.
    #[track_caller]
    pub fn once(&self) -> (i32, Value) {
        let ended = self.run(&["once", "--format", "json", "--now", &self.retailer.now()]);
        assert!(matches!(ended.code, 0 | 4), "exit {}\n{}\n{}", ended.code, ended.stdout, ended.stderr);
        let report = ended.json();
        assert_sums(&report);
        (ended.code, report)
    }

    /// Fails unless the good source and the good channel have done all that they had to do in the first run.
    #[track_caller]
    pub fn good_ones_worked(&self, report: &Value) {
        assert_eq!(report["sources"]["till"]["failed"], Value::Null, "{report:#}");
        assert_eq!(count(report, "/sources/till/new"), MEMBERS as u64);
        assert_eq!(count(report, "/campaigns/greet/planned"), MEMBERS as u64);
        assert_eq!(report["channels"]["list"], json!({ "sent": MEMBERS, "retrying": 0, "failed": 0, "unknown": 0 }));
        self.list_is_whole();
    }

    /// Fails unless each member stands in the good channel's work lists once.
    #[track_caller]
    pub fn list_is_whole(&self) {
        let lists = self.retailer.work_lists();
        let phones: BTreeSet<_> = lists.iter().flat_map(|list| &list.rows).map(|row| row["phone"].clone()).collect();
        assert_eq!((phones.len(), lists.iter().map(|list| list.rows.len()).sum::<usize>()), (MEMBERS, MEMBERS));
    }

    /// How each component is, by its name in the config.
    #[track_caller]
    pub fn states(&self) -> BTreeMap<String, State> {
        let status = self.run(&["status", "--format", "json"]).exits(0).json();
        self.told_no_secret();
        let plugins = status["plugins"].as_array().unwrap();
        plugins.iter().map(|plugin| (plugin["component"].as_str().unwrap().to_owned(), State::of(plugin))).collect()
    }

    /// Fails where what is remembered of plugins, or said of tasks, has a phone number.
    #[track_caller]
    fn told_no_secret(&self) {
        self.run(&["tasks", "ls", "--format", "json"]).exits(0);
        let files = fs::read_dir(self.retailer.path("state/plugins")).unwrap().flatten().filter(|entry| entry.path().is_file());
        for file in files {
            self.retailer.shows_no_phone(&String::from_utf8_lossy(&fs::read(file.path()).unwrap()));
        }
    }

    /// The tasks of each campaign by their ids, with their states.
    #[track_caller]
    pub fn tasks(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut tasks = BTreeMap::<_, BTreeMap<_, _>>::new();
        for task in self.retailer.query("select task_id as id, campaign, state from tasks") {
            let [id, campaign, state] = ["id", "campaign", "state"].map(|name| task[name].as_str().unwrap().to_owned());
            tasks.entry(campaign).or_default().insert(id, state);
        }
        tasks
    }

    /// The tasks that a channel has sent, as often as it did.
    pub fn sent(&self, channel: &str) -> Vec<String> {
        let text = fs::read_to_string(self.retailer.path("counters").join(channel)).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("task ")).map(str::to_owned).collect()
    }

    /// Fails where one of these channels, none of them idempotent, has sent a task more than once, or where the ledger
    /// says of one that was not sent that it was, or the other way round.
    #[track_caller]
    pub fn no_task_was_sent_twice(&self, channels: &[&str]) {
        let tasks = self.tasks();
        for channel in channels {
            let none = BTreeMap::new();
            let tasks = tasks.get(*channel).unwrap_or(&none);
            accounts_agree(channel, &self.sent(channel), tasks, false);
        }
    }
}

/// What was said, without the lines of those that flood the log.
fn said(stderr: &str) -> String {
    stderr.lines().filter(|line| !line.contains("flood flood")).map(|line| format!("{line}\n")).collect()
}

/// Fails where the ledger and a channel do not agree on what was sent, as far as both can know, or a task was sent twice
/// that must not be.
#[track_caller]
pub fn accounts_agree(context: &str, sent: &[String], tasks: &BTreeMap<String, String>, idempotent: bool) {
    let once: BTreeSet<_> = sent.iter().collect();
    let twice = sent.len() - once.len();
    assert!(idempotent || twice == 0, "{context}: {twice} tasks were sent twice");
    for (id, state) in tasks {
        let was_sent = once.contains(id);
        match state.as_str() {
            "accepted" => assert!(was_sent, "{context}: {id} is accepted, and was not sent"),
            "unknown" => {}
            _ => assert!(!was_sent || idempotent, "{context}: {id} is {state}, and was sent"),
        }
    }
    assert!(once.iter().all(|id| tasks.contains_key(*id)), "{context}: what was sent is no task of its");
}

/// How a component is, as `status` has it.
#[derive(Debug)]
pub struct State {
    /// In words.
    pub sentence: String,
    /// Restarts within the last hour.
    pub restarts: u64,
}

impl State {
    fn of(plugin: &Value) -> Self {
        Self { sentence: plugin["state"].as_str().unwrap().to_owned(), restarts: plugin["health"]["restarts"].as_u64().unwrap_or(0) }
    }
}

/// A line of a table: what was said where a misbehaviour was met.
pub fn told(shop: &Shop, case: &Case, told: &str) -> String {
    format!("{:8} {:24} {}\n", case.stage.name(), case.name(), short(&shop.why(case, told)))
}

/// The same, and what `status` says of the component.
pub fn line(shop: &Shop, case: &Case, told: &str, state: &State) -> String {
    let told = shop.why(case, told);
    let of_state = shop.why(case, &state.sentence);
    // It may be well again by then, or not yet: that is a matter of a second.
    let of_state = match of_state.strip_prefix("failed: ").map(|why| told.ends_with(why)) {
        Some(false) => of_state,
        Some(true) if state.restarts == 0 => "failed".to_owned(),
        _ if state.restarts > 0 => format!("restarts {}", state.restarts),
        _ => of_state,
    };
    // How far they get until they are ended depends on the machine.
    let of_state = match case.name() {
        "allocate" | "flood_log" | "flood_stderr" if case.stage == Stage::Destroy => "<well, or too late, or too much>".to_owned(),
        _ => of_state,
    };
    let [told, of_state] = [told, of_state].map(|text| short(&text));
    format!("{:8} {:24} {told} | {of_state}\n", case.stage.name(), case.name())
}

/// How a process sees that its socket is gone depends on how it was built.
pub fn ended_somehow(why: &str) -> String {
    why.replace("signal 6 (aborted)", "<ended>").replace("exited with code 1", "<ended>")
}

fn short(text: &str) -> String {
    let short: String = text.chars().take(140).collect();
    if short.len() < text.len() { short + "…" } else { short }
}

impl Shop {
    /// What a sentence of a report, of a note or of a status says of a plugin, without what differs from time to time,
    /// and without what is said of all of them.
    fn why(&self, case: &Case, sentence: &str) -> String {
        let name = case.name();
        let mut why = sentence.to_owned();
        for end in [", restarts ", "; it is started again", "; report this to the plugin's author"] {
            why = why.split(end).next().unwrap().to_owned();
        }
        let folder = self.retailer.path("").display().to_string();
        let known = [format!("the plugin of source {name} failed: "), format!("the plugin of channel {name} failed: "), folder];
        known.iter().for_each(|known| why = why.replace(known, ""));
        if let Some((before, rule)) = why.split_once(" broke the contract: ") {
            let kind = before.split_once("the ").map_or("", |(class, _)| class);
            why = format!("{kind}broken contract: {rule}");
        }
        let from = |found: &str, instead: &str| why.split_once(found).map_or(why.clone(), |(before, _)| format!("{before}{instead}"));
        match name {
            "close_socket" => ended_somehow(&why),
            "garbage_socket" => from("it sent ", "<garbage>"),
            // Whether the system limits it or the program watches it.
            "allocate" => from("took ", "<too much memory>"),
            "double_receipts" => why.split(' ').map(|word| if word.len() == 32 { "#" } else { word }).collect::<Vec<_>>().join(" "),
            _ => why,
        }
    }
}
