//! What a run needs before it begins: the pipeline, the clock, the head, the channels, the campaigns.

use std::collections::{BTreeMap, HashMap};

use reunion_generations::Generation;
use reunion_host::ChannelConnector;
use reunion_ledger::{ComponentKind, ComponentState, Facts, Head};
use reunion_model::plugin::{PluginError, Reach};
use reunion_model::schema::COLUMNS;
use reunion_outreach::Campaign;
use reunion_rules::{Rules, rule_schema};

use crate::app::App;
use crate::cli::RunArgs;
use crate::components;
use crate::config::{Config, Diagnostics};
use crate::failure::Failure;
use crate::state::{State, now_us};

use super::campaigns;
use super::progress::Progress;
use super::sources::{PulledSources, SourceSchema, StoredSchema, is_stale, true_at};

/// The pipeline that the arguments mean: the one they name, or the only one.
///
/// # Errors
/// Where there is no such pipeline, or several to choose from.
pub fn pipeline(config: &Config, wanted: Option<&str>) -> Result<String, Failure> {
    let names: Vec<&str> = config.pipelines.keys().map(String::as_str).collect();
    let list = || format!("the pipelines are {}", names.join(", "));
    match (wanted, names.as_slice()) {
        (Some(wanted), _) if config.pipelines.contains_key(wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(Failure::usage(format!("there is no pipeline `{wanted}`")).help(list())),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Failure::usage("the config has no pipeline").help("add [pipelines.daily] with `sources` and `campaigns`")),
        (None, _) => Err(Failure::usage("there are several pipelines").help(format!("choose one with --pipeline: {}", list()))),
    }
}

/// The run's clock, microseconds UTC.
///
/// # Errors
/// Where `--now` is given and the config does not allow it.
pub fn clock(config: &Config, args: &RunArgs) -> Result<i64, Failure> {
    match args.now {
        None => Ok(now_us()),
        Some(_) if !config.testing.clock => {
            Err(Failure::usage("--now is only for rehearsals").help("set `clock = true` under [testing] in a config that contacts nobody"))
        }
        Some(now) => Ok(now.as_microsecond()),
    }
}

/// A run's surroundings.
pub struct Setup<'a> {
    /// The program.
    pub app: &'a App,
    /// The state.
    pub state: &'a State,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The run's clock, microseconds UTC.
    pub clock_us: i64,
    /// Sources whose guard is told to let pass what it refused.
    pub accept: Vec<String>,
    /// Incremental sources that are to be read whole.
    pub sweep: Vec<String>,
    /// The head, pinned.
    pub head: Option<(Head, Generation)>,
    /// The channels of the config.
    pub channels: BTreeMap<String, Box<dyn ChannelConnector>>,
    /// Channels whose plugins failed.
    pub failed_channels: BTreeMap<String, PluginError>,
    /// The columns of the sources: of this pipeline's as they say now, of others as they were last.
    pub schemas: BTreeMap<String, SourceSchema>,
    /// The campaigns of the config.
    pub campaigns: HashMap<String, Campaign>,
    /// The rules of the config.
    pub rules: Rules,
    /// Sources and campaigns with committed state.
    pub components: Vec<ComponentState>,
    /// What people and channels have told us.
    pub facts: Facts,
    /// What the operator sees of it.
    pub progress: Progress,
}

impl<'a> Setup<'a> {
    /// Gathers everything; nothing is changed.
    ///
    /// # Errors
    /// Where the config, the arguments or the state do not allow a run.
    pub fn new(app: &'a App, state: &'a State, args: &RunArgs) -> Result<Self, Failure> {
        let config = &app.config;
        let pipeline = pipeline(config, args.pipeline.as_deref())?;
        let clock_us = clock(config, args)?;
        for (option, names) in [("accept", &args.accept), ("sweep", &args.sweep)] {
            let guards: &[&str] = if option == "accept" { &super::guards::NAMES } else { &[] };
            if let Some(unknown) = names.iter().find(|name| !config.sources.contains_key(*name) && !guards.contains(&name.as_str())) {
                let what = if guards.is_empty() { "source" } else { "source or guard" };
                let names = config.sources.keys().map(String::as_str).chain(guards.iter().copied()).collect::<Vec<_>>();
                let failure = Failure::usage(format!("--{option} names `{unknown}`, and there is no such {what}"));
                return Err(failure.help(format!("it takes {}", names.join(", "))));
            }
        }
        let components::Channels { made: channels, failed: failed_channels } = components::channels(config, &app.plugins)?;
        if config.testing.clock {
            stays_here(config, &channels)?;
        }
        let components = state.ask(state.ledger.components())?;
        nothing_vanished(config, &components)?;
        let head = state.head()?;
        let stored = StoredSchema::of(head.as_ref().map(|(_, generation)| generation))?;
        let schemas = super::sources::schemas(app, state, &pipeline, &components, &stored, &args.accept)?;
        let golden = super::golden_columns(config, &schemas)?;
        // A rule may name any canonical column, whether or not a source brings it.
        let absent = COLUMNS.iter().filter(|column| golden.iter().all(|golden| golden.name != column.name));
        let absent = absent.map(|column| (column.name, column.kind));
        let schema = rule_schema(golden.iter().map(|column| (column.name.as_str(), column.kind)).chain(absent));
        let mut findings = Diagnostics::default();
        let rules = campaigns::rules(config, &schema).map_err(|errors| findings.extend(errors));
        let campaigns = campaigns::campaigns(config, &channels, &schema).map_err(|errors| findings.extend(errors));
        let (Ok(rules), Ok(campaigns)) = (rules, campaigns) else { return Err(findings.into()) };
        let facts = state.ask(state.ledger.facts())?;
        Ok(Self {
            app,
            state,
            pipeline,
            clock_us,
            accept: args.accept.clone(),
            sweep: args.sweep.clone(),
            head,
            channels,
            failed_channels,
            schemas,
            campaigns,
            rules,
            components,
            facts,
            progress: Progress::new(app.format),
        })
    }

    /// The head's number.
    pub fn base_number(&self) -> Option<u64> {
        self.head.as_ref().map(|(head, _)| head.generation)
    }

    /// The head's generation.
    pub fn base(&self) -> Option<&Generation> {
        self.head.as_ref().map(|(_, generation)| generation)
    }

    /// The campaigns of the pipeline, in its order.
    pub fn pipeline_campaigns(&self) -> impl Iterator<Item = &Campaign> {
        self.app.config.pipelines[&self.pipeline].campaigns.iter().map(|name| &self.campaigns[name])
    }

    /// The bits, in the order of [`Setup::schemas`], of sources whose data is older than they allow.
    ///
    /// # Errors
    /// Where the ledger does not answer.
    pub fn stale_sources(&self, pulled: &PulledSources) -> Result<u64, Failure> {
        let mut mask = 0;
        for (bit, (name, schema)) in self.schemas.iter().enumerate() {
            let Some(source) = self.app.config.sources.get(&schema.name) else { continue };
            let last = self.state.ask(self.state.ledger.source_state(&schema.name))?.last;
            // A dry run has pulled what the ledger does not know of, and must decide as a run would.
            let just_now = pulled.get(name).and_then(|pulled| pulled.as_of_us);
            if is_stale(source, just_now.or_else(|| last.as_ref().map(true_at)), self.clock_us) {
                tracing::info!(source = name, "its data is older than max_age_hours; nobody is contacted on it");
                mask |= 1 << bit;
            }
        }
        Ok(mask)
    }
}

/// A rehearsal must not reach anybody.
fn stays_here(config: &Config, channels: &BTreeMap<String, Box<dyn ChannelConnector>>) -> Result<(), Failure> {
    match channels.iter().find(|(_, channel)| channel.traits().reach == Reach::Network) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("[testing] clock = true, and the channel `{name}` reaches beyond files and this machine");
            let help = "a rehearsal must not contact anybody: take the channel out, or the clock".to_owned();
            Err(Diagnostics::at(config, &["channels", name], message, Some(help)).into())
        }
    }
}

/// A source or campaign with state that left the config must be accounted for: a renamed campaign must
/// not greet everybody again.
fn nothing_vanished(config: &Config, components: &[ComponentState]) -> Result<(), Failure> {
    let vanished = components.iter().filter(|component| component.retired_us.is_none()).find(|component| match component.kind {
        ComponentKind::Source => !config.sources.contains_key(&component.name),
        ComponentKind::Campaign => !config.campaigns.contains_key(&component.name),
    });
    let Some(component) = vanished else { return Ok(()) };
    let (kind, name) = (component.kind.name(), &component.name);
    Err(Failure::guard(format!("the {kind} `{name}` has state and is not in the config any more"))
        .help(format!("say what became of it: `reunion {kind}s rename {name} NEW`, or `reunion {kind}s retire {name}`")))
}
