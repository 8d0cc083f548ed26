//! The command line: its grammar and its exit codes, and nothing of what the commands do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use reunion_model::limits::DECISION_WHY_CHARS_MAX;
use reunion_model::phone::mask_numbers;
use reunion_model::plugin::PluginKind;
use reunion_model::task::TaskState;
use reunion_model::{DecisionId, TaskId};

/// How the program ends. Scripts rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something failed that no other code stands for.
    Failed = 1,
    /// The config or the arguments are wrong; nothing was done.
    Usage = 2,
    /// A guard refused: a source shrank, a component vanished, another run holds the state.
    Refused = 3,
    /// Some part failed or is still being retried; the rest was done.
    Partial = 4,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Usage, Self::Refused, Self::Partial];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, for the help text and the reference page.
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "something failed that no other code stands for",
            Self::Usage => "the config or the arguments are wrong",
            Self::Refused => "a guard refused: a source shrank, a component vanished, another run holds the state",
            Self::Partial => "some part failed or is still being retried, and the rest was done",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  something failed that no other code stands for
  2  the config or the arguments are wrong
  3  a guard refused: a source shrank, a component vanished, another run holds the state
  4  some part failed or is still being retried, and the rest was done";

/// Finds out who a retailer's members are, and hands out the tasks of waking them.
#[derive(Debug, Parser)]
#[command(name = "reunion", version, about, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// The config; `conf.d/*.toml` beside it is read too [default: /etc/reunion/reunion.toml]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// How results are written to standard output; the log goes to standard error
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Where the config is.
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new("/etc/reunion/reunion.toml"))
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check the config and compile every rule and template; change nothing
    Check {
        /// Load the plugins, and reach every source and channel
        #[arg(long)]
        connect: bool,
    },
    /// Pull and compute as `once` would; commit nothing and contact nobody
    Plan(RunArgs),
    /// Run a pipeline once, to the end: pull, find out who is who, plan, and send what is due
    Once(RunArgs),
    /// Run as a daemon: schedules and dispatch, until SIGTERM
    Run,
    /// Show the last runs, the sources, the queues and the plugins
    Status,
    /// Say everything that is known of a member: rows, merges, values, tags, tasks, refusals
    Explain {
        /// A phone number, or a member's id
        #[arg(value_name = "PHONE|MEMBER_ID")]
        who: String,
    },
    /// Ask in SQL, read-only: members, records, quarantine, tasks, touches
    Query {
        /// One SELECT statement
        sql: String,
    },
    /// The outbox and what became of it
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// The plugins that are installed
    #[command(subcommand)]
    Plugins(PluginsCommand),
    /// Decide who is who where keys do not: it holds from the next run on, until it is withdrawn
    #[command(subcommand)]
    Members(MembersCommand),
    /// The list of phones that are never contacted
    #[command(subcommand)]
    Suppress(SuppressCommand),
    /// Tell the state what became of a source
    #[command(subcommand)]
    Sources(ComponentCommand),
    /// Tell the state what became of a campaign
    #[command(subcommand)]
    Campaigns(ComponentCommand),
    /// Go back to an earlier generation of the members; what was pulled since is taken in again
    Rollback {
        /// The generation to go back to [default: the one before the present one]
        #[arg(long, value_name = "GENERATION")]
        to: Option<u64>,
    },
    /// The keys that the state is encrypted under
    #[command(subcommand)]
    Key(KeyCommand),
    /// One case of `plugins verify`, which starts it
    #[command(hide = true)]
    PluginCase,
    /// Read every file of a generation and compare it with the manifest
    Verify {
        /// Another generation than the present one
        #[arg(long, value_name = "GENERATION")]
        generation: Option<u64>,
        /// Every generation that is kept: which of them one could go back to
        #[arg(long, conflicts_with = "generation")]
        all: bool,
    },
}

impl Command {
    /// Whether what the config warns of matters to it; one that only shows or keeps the state would repeat it in vain.
    pub fn acts_on_the_config(&self) -> bool {
        matches!(self, Self::Check { .. } | Self::Plan(_) | Self::Once(_) | Self::Run)
    }
}

/// What `plan` and `once` take.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// The pipeline; needed when there are several
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// The run's clock, RFC 3339; only with `[testing] clock = true`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub now: Option<Timestamp>,
    /// Take what the guard of this source refused, this once; may be given for several
    #[arg(long, value_name = "SOURCE")]
    pub accept: Vec<String>,
    /// Read this incremental source whole, though its sweep is not due; may be given for several
    #[arg(long, value_name = "SOURCE")]
    pub sweep: Vec<String>,
}

/// `tasks …`.
#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// List tasks, the latest first
    Ls {
        /// Which tasks
        #[command(flatten)]
        filter: TaskFilter,
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Show one task and its history
    Show {
        /// The task's id
        #[arg(value_name = "TASK_ID")]
        id: TaskId,
    },
    /// Send tasks again whose outcome is unknown
    Requeue(TaskSelection),
    /// Take back tasks that have not been sent
    Drop(TaskSelection),
}

/// Which tasks to list. All conditions hold together.
#[derive(Debug, Clone, Default, Args)]
pub struct TaskFilter {
    /// Tasks of this campaign
    #[arg(long, value_name = "NAME")]
    pub campaign: Option<String>,
    /// Tasks in this state: planned, sending, accepted, delivered, rejected, not_sent, unknown, cancelled, refused
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub state: Option<TaskState>,
    /// Tasks for this channel
    #[arg(long, value_name = "NAME")]
    pub channel: Option<String>,
    /// Tasks that moved last at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<Timestamp>,
}

/// Which tasks to change: some ids, or all that a filter finds. One of them must be given.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "selection", required = true, multiple = true)]
pub struct TaskSelection {
    /// These tasks
    #[arg(value_name = "TASK_ID", group = "selection")]
    pub ids: Vec<TaskId>,
    /// Tasks of this campaign
    #[arg(long, value_name = "NAME", group = "selection", conflicts_with = "ids")]
    pub campaign: Option<String>,
    /// Tasks in this state
    #[arg(long, value_name = "STATE", value_parser = parse_state, group = "selection", conflicts_with = "ids")]
    pub state: Option<TaskState>,
    /// Tasks for this channel
    #[arg(long, value_name = "NAME", group = "selection", conflicts_with = "ids")]
    pub channel: Option<String>,
    /// Tasks that moved last at this time or later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time, group = "selection", conflicts_with = "ids")]
    pub since: Option<Timestamp>,
}

impl TaskSelection {
    /// The filter, where no ids are given.
    pub fn filter(&self) -> TaskFilter {
        TaskFilter { campaign: self.campaign.clone(), state: self.state, channel: self.channel.clone(), since: self.since }
    }
}

/// `plugins …`.
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// List the plugins that are found, and where
    Ls {
        /// Look again at libraries that crashed when they were looked at
        #[arg(long)]
        rescan: bool,
    },
    /// Show a plugin's keys and its sample config
    Show {
        /// Its name, as in `plugin = "…"`
        name: String,
        /// Where a source and a channel have the same name, the one to show [default: both]
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        kind: Option<PluginKind>,
    },
    /// Write a folder with a new plugin, which builds and passes its tests, to begin with
    New(NewPlugin),
    /// Try what a plugin must do: the conformance suite. A channel is given invented tasks
    Verify {
        /// The library's file
        #[arg(value_name = "LIB")]
        library: PathBuf,
        /// A TOML file with the component's `with` table [default: an empty table]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Push tasks though the channel's reach is the network
        #[arg(long)]
        send: bool,
    },
}

/// What `plugins new` takes.
#[derive(Debug, Clone, Args)]
pub struct NewPlugin {
    /// Its name, as in `plugin = "…"`
    pub name: String,
    /// Whether it reads members or is given tasks: source or channel
    #[arg(long, value_name = "KIND", value_parser = parse_kind)]
    pub kind: PluginKind,
    /// The language that it is written in
    #[arg(long, value_name = "LANG", value_enum)]
    pub lang: Lang,
    /// The folder to write, which must not be there yet [default: the name, in the current folder]
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
    /// Rust: the SDK, or a checkout of Reunion [default: one above the new or the current folder, or /usr/share/reunion/sdk]
    #[arg(long, value_name = "PATH")]
    pub sdk: Option<PathBuf>,
}

/// The languages that `plugins new` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lang {
    /// Rust, with the SDK
    Rust,
    /// C11, with the header and nothing else
    C,
}

impl Lang {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
        }
    }
}

/// `members …`.
#[derive(Debug, Subcommand)]
pub enum MembersCommand {
    /// These members are one person
    Merge {
        /// The members, two or more: phone numbers or ids
        #[arg(value_name = "PHONE|MEMBER_ID", required = true, num_args = 2..)]
        members: Vec<String>,
        /// Why
        #[command(flatten)]
        order: OrderArgs,
    },
    /// These two members are two people, whatever keys their rows share
    KeepApart {
        /// One member: a phone number or an id
        #[arg(value_name = "PHONE|MEMBER_ID")]
        one: String,
        /// The other
        #[arg(value_name = "PHONE|MEMBER_ID")]
        other: String,
        /// Why
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Some rows of a member are another person than the rest
    Split {
        /// The member: a phone number or an id
        #[arg(value_name = "PHONE|MEMBER_ID")]
        member: String,
        /// The rows that are another person: SOURCE/RECORD_ID, several with commas between them, or the option several
        /// times; a comma or backslash in a record id is written `\,` or `\\`
        #[arg(long, value_name = "SOURCE/RECORD_ID", required = true)]
        records: Vec<String>,
        /// Why
        #[command(flatten)]
        order: OrderArgs,
    },
    /// List what was decided, the latest first, and whether it still holds
    Decisions {
        /// `members decisions ls` is the same
        #[arg(value_name = "ls", value_parser = ["ls"], hide = true)]
        ls: Option<String>,
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Withdraw a decision: it is as if it had never been made
    Undo {
        /// The decision's id
        #[arg(value_name = "DECISION_ID")]
        id: DecisionId,
        /// Why
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Probable duplicates, where keys cannot decide and people can
    #[command(subcommand)]
    Review(ReviewCommand),
}

/// `members review …`.
#[derive(Debug, Subcommand)]
pub enum ReviewCommand {
    /// List pairs of members that are probably one person and that nobody has decided about, with the reasons
    Ls(ReviewLsArgs),
    /// These pairs are one person each
    Accept(ReviewAnswerArgs),
    /// These pairs are two people each, whatever keys their rows share
    Reject(ReviewAnswerArgs),
    /// Merge pairs by their scores alone, as far as the pairs accepted and rejected so far show that scores are right
    Merge(ReviewMergeArgs),
}

/// `members review ls`.
#[derive(Debug, Clone, Args)]
pub struct ReviewLsArgs {
    /// Pairs of this probability or more
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.9, value_parser = parse_probability)]
    pub probability_min: f64,
    /// Pairs of less than this probability
    #[arg(long, value_name = "PROBABILITY", value_parser = parse_probability)]
    pub probability_max: Option<f64>,
    /// In no order instead of the most probable first, to see what pairs are like in general
    #[arg(long)]
    pub sample: bool,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub limit: u32,
}

/// `members review accept|reject`.
#[derive(Debug, Clone, Args)]
pub struct ReviewAnswerArgs {
    /// The pairs, as `members review ls` names them
    #[arg(value_name = "PAIR", required = true)]
    pub pairs: Vec<String>,
    /// Why; kept with the decision beside what the score says, with numbers of eleven and more digits masked
    #[arg(long, value_name = "TEXT", value_parser = parse_why)]
    pub why: Option<String>,
    /// Say what would be decided; store nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `members review merge`.
#[derive(Debug, Clone, Args)]
pub struct ReviewMergeArgs {
    /// How large a share of merged pairs must be one person, as reviews have to show with a confidence of 95 %
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = parse_probability)]
    pub precision_min: f64,
    /// How many pairs at most
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub limit: u32,
    /// Why; kept with the decisions beside what the scores say, with numbers of eleven and more digits masked
    #[arg(long, value_name = "TEXT", value_parser = parse_why)]
    pub why: Option<String>,
    /// Say what would be merged; store nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What every order of `members` takes.
#[derive(Debug, Clone, Args)]
pub struct OrderArgs {
    /// Why; kept with the decision and in the audit, with numbers of eleven and more digits masked
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run", value_parser = parse_why)]
    pub why: Option<String>,
    /// Say what would be decided; store nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `suppress …`.
#[derive(Debug, Subcommand)]
pub enum SuppressCommand {
    /// Never contact this phone again; its open tasks are taken back
    Add {
        /// The phone number
        phone: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// List what is suppressed; phones are kept as hashes, and shown masked
    Ls {
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Allow this phone again
    Rm {
        /// The phone number
        phone: String,
    },
}

/// `sources …` and `campaigns …`.
#[derive(Debug, Subcommand)]
pub enum ComponentCommand {
    /// It has another name in the config now; everything known of it goes with it
    Rename {
        /// The name that the state knows
        #[arg(value_name = "OLD")]
        from: String,
        /// The name that the config has now
        #[arg(value_name = "NEW")]
        to: String,
    },
    /// It left the config for good
    Retire {
        /// The name that the state knows
        name: String,
    },
}

/// `key …`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a master key: 64 hex digits, written to standard output
    New {
        /// Write it to this file instead, which only its owner can read and which must not be there yet
        #[arg(long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Encrypt what is written from now on under a new data key
    Rotate {
        /// Also wrap all keys under the master key in this file, which the config must name from then on
        #[arg(long, value_name = "PATH")]
        master: Option<PathBuf>,
    },
    /// Write the key of the state's Parquet files to standard output, for DuckDB and others
    Export {
        /// Another version of the data key than the present one; with `--format json` all are written
        #[arg(long, value_name = "NUMBER")]
        version: Option<u32>,
        /// How the key's 32 bytes are written: DuckDB takes base64
        #[arg(long, value_name = "ENCODING", value_enum, default_value_t = KeyEncoding::Hex)]
        encoding: KeyEncoding,
    },
}

/// How a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyEncoding {
    /// 64 hex digits
    Hex,
    /// 44 characters
    Base64,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "a time is RFC 3339 with an offset, such as 2026-03-25T06:00:00+08:00".to_owned())
}

fn parse_probability(text: &str) -> Result<f64, String> {
    let probability = text.parse().ok().filter(|probability| (0.5..1.0).contains(probability));
    probability.ok_or_else(|| "between 0.5 and 1, such as 0.99".to_owned())
}

fn parse_why(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say why in a few words".to_owned());
    }
    if text.chars().any(char::is_control) || text.chars().count() > DECISION_WHY_CHARS_MAX {
        return Err(format!("the reason is one line of at most {DECISION_WHY_CHARS_MAX} characters"));
    }
    Ok(mask_numbers(text))
}

fn parse_state(text: &str) -> Result<TaskState, String> {
    TaskState::from_name(text).ok_or_else(|| format!("the states are {}", TaskState::ALL.map(TaskState::name).join(", ")))
}

fn parse_kind(text: &str) -> Result<PluginKind, String> {
    let kinds = [PluginKind::Source, PluginKind::Channel];
    kinds.into_iter().find(|kind| kind.name() == text).ok_or_else(|| "a plugin is a source or a channel".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_exit_code() {
        for exit in Exit::ALL {
            assert!(AFTER_HELP.contains(&format!("  {}  {}", exit.code(), exit.explain())), "{exit:?}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli = parse("reunion once --pipeline daily --config /x.toml --format json --now 2026-03-25T06:00:00+08:00").expect("a command");
        assert_eq!((cli.config_path(), cli.format), (Path::new("/x.toml"), Format::Json));
        let Command::Once(run) = cli.command else { panic!("once") };
        assert_eq!(run.now.map(|now| now.as_second()), Some(1_774_389_600));
    }

    #[test]
    fn verify_has_a_config_of_its_own() {
        let given = |line| match parse(line).expect("a command").command {
            Command::Plugins(PluginsCommand::Verify { config, .. }) => config,
            other => panic!("{other:?}"),
        };
        assert_eq!(given("reunion plugins verify x.so"), None);
        assert_eq!(given("reunion plugins verify x.so --config with.toml"), Some(PathBuf::from("with.toml")));
        assert_eq!(parse("reunion status").expect("a command").config_path(), Path::new("/etc/reunion/reunion.toml"));
    }

    #[test]
    fn nothing_is_dropped_without_saying_what() {
        assert_eq!(parse("reunion tasks drop").expect_err("no selection").kind(), ErrorKind::MissingRequiredArgument);
        assert!(parse("reunion tasks drop --campaign warm-add").is_ok());
        assert!(parse("reunion tasks requeue 30313233343536373839616263646566").is_ok());
        let both = parse("reunion tasks drop 30313233343536373839616263646566 --state unknown").expect_err("two selections");
        assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn an_order_about_members_says_why() {
        let order = |line: &str| match parse(line).expect("a command").command {
            Command::Members(MembersCommand::Merge { members, order, .. }) => (members.len(), order.why, order.dry_run),
            other => panic!("{other:?}"),
        };
        assert_eq!(order("reunion members merge a b c --why 13800138000"), (3, Some("138****8000".to_owned()), false));
        assert_eq!(order("reunion members merge a b --dry-run"), (2, None, true));
        for (line, kind) in [
            ("reunion members merge a b", ErrorKind::MissingRequiredArgument),
            ("reunion members merge a --why x", ErrorKind::TooFewValues),
            ("reunion members keep-apart a --why x", ErrorKind::MissingRequiredArgument),
            ("reunion members split a --why x", ErrorKind::MissingRequiredArgument),
            ("reunion members undo 0123 --why x", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).expect_err(line).kind(), kind, "{line}");
        }
        assert!(parse("reunion members decisions").is_ok() && parse("reunion members decisions ls --limit 5").is_ok());
        let empty = Cli::try_parse_from(["reunion", "members", "merge", "a", "b", "--why", " "]).expect_err("no reason");
        assert_eq!(empty.kind(), ErrorKind::ValueValidation);
        let lines = Cli::try_parse_from(["reunion", "members", "merge", "a", "b", "--why", "x\ny"]).expect_err("two lines");
        assert!(lines.to_string().contains("one line"), "{lines}");
    }

    #[test]
    fn a_wrong_argument_says_what_is_right() {
        let said = |line| parse(line).expect_err("wrong").to_string();
        assert!(said("reunion once --now yesterday").contains("2026-03-25T06:00:00+08:00"));
        assert!(said("reunion tasks ls --state lost").contains("planned, sending"));
        assert!(said("reunion tasks show 12").contains("32 hex digits"));
        assert!(said("reunion plan --pipelin x").contains("--pipeline"));
        assert_eq!(parse("reunion nonsense").expect_err("wrong").exit_code(), i32::from(Exit::Usage.code()));
    }
}
