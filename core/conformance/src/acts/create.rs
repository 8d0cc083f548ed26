//! An instance is made, without anything else, and reaches its other side when it is checked.

use std::time::{Duration, Instant};

use reunion_host::CallOptions;
use reunion_model::plugin::{ChannelTraits, ErrorClass, Finding, FindingLevel, PluginError, PluginKind};
use serde_json::Value;

use super::{Played, passed};
use crate::confine::Confinement;
use crate::machine::{Census, Watch, config_paths};
use crate::phones::shown;
use crate::rules;
use crate::stage::{CALL_TIME_MAX, Stage, Stop, failed, skipped};

/// Cancel takes effect within a second, by contract; the rest is for a machine that is busy.
pub const STOPS_WITHIN: Duration = Duration::from_millis(1_250);

/// Makes an instance and looks at what else was done.
pub fn create(stage: &Stage) -> Played {
    let plugin = stage.plugin()?;
    let places = config_paths(&stage.request.config, &plugin.manifest().config_schema);
    make_and_look(stage, &[])?;
    // Somebody else may have opened one of the files just then; twice in a row nobody does.
    if make_and_look(stage, &places)?.is_some()
        && let Some(touched) = make_and_look(stage, &places)?
    {
        return Err(failed(format!("it opened {}, which the config names", touched.display()), rules::CREATE));
    }
    passed()
}

fn make_and_look(stage: &Stage, places: &[std::path::PathBuf]) -> Result<Option<std::path::PathBuf>, Stop> {
    let watch = Watch::begin(places);
    let before = Census::take();
    let instance = Made::make(stage)?;
    let after = Census::take();
    if let Some(thread) = after.new_threads(&before).first() {
        return Err(failed(format!("it started a thread {thread:?}"), rules::CREATE));
    }
    if let Some(descriptor) = after.new_descriptors(&before).first() {
        return Err(failed(format!("it opened {descriptor}"), rules::CREATE));
    }
    let touched = watch.and_then(|watch| watch.touched());
    stage.doing("destroy ran");
    drop(instance);
    Ok(touched)
}

/// Makes an instance where something else that it does ends the process.
pub fn confined(stage: &Stage, to: Confinement) -> Played {
    stage.plugin()?;
    to.apply().map_err(skipped)?;
    // What its end does is no matter of create's.
    std::mem::forget(Made::make(stage)?);
    passed()
}

/// An instance of either kind.
pub enum Made {
    /// A source.
    Source(Box<dyn reunion_host::SourceConnector>),
    /// A channel.
    Channel(Box<dyn reunion_host::ChannelConnector>),
}

impl Made {
    /// Makes it.
    ///
    /// # Errors
    /// Where create fails.
    pub fn make(stage: &Stage) -> Result<Self, Stop> {
        Ok(match stage.request.kind {
            PluginKind::Source => Self::Source(stage.source()?),
            PluginKind::Channel => Self::Channel(stage.channel()?),
        })
    }

    /// Checks it.
    ///
    /// # Errors
    /// The plugin's.
    pub fn check(&self, options: &CallOptions) -> Result<Vec<Finding>, PluginError> {
        match self {
            Self::Source(source) => source.check(options),
            Self::Channel(channel) => channel.check(options),
        }
    }

    fn traits(&self) -> ChannelTraits {
        match self {
            Self::Source(_) => ChannelTraits::default(),
            Self::Channel(channel) => channel.traits().clone(),
        }
    }
}

/// Checks, in time and with a deadline that has passed. Data: what a channel does.
pub fn check(stage: &Stage) -> Played {
    let made = Made::make(stage)?;
    stage.calling("check ran");
    let from = Instant::now();
    let checked = made.check(&stage.options());
    let took = from.elapsed();
    if took > CALL_TIME_MAX + STOPS_WITHIN {
        let seen = format!("it took {:.1} s, and its deadline passed after {} s", took.as_secs_f64(), CALL_TIME_MAX.as_secs());
        return Err(failed(seen, rules::STOP));
    }
    let note = checked_note(stage, &checked)?;
    stage.stopping("check ran with a deadline that had passed");
    let late = CallOptions { deadline_unix_ms: Some(1), ..stage.options() };
    let from = Instant::now();
    let answer = made.check(&late);
    let took = from.elapsed();
    if took > STOPS_WITHIN {
        let seen = format!("with a deadline that had passed it took {:.1} s where one second is allowed", took.as_secs_f64());
        return Err(failed(seen, rules::STOP));
    }
    if let Err(error) = &answer {
        // Whatever was found before the clock was looked at may be said.
        stage.heard.error(error);
        if matches!(error.class, ErrorClass::Internal | ErrorClass::Cancelled) {
            let seen = format!("with a deadline that had passed it answered {}: {}", error.class.name(), shown(&error.message));
            return Err(failed(seen, rules::STOP));
        }
    }
    let traits = serde_json::to_value(made.traits()).unwrap_or(Value::Null);
    stage.doing("destroy ran");
    drop(made);
    Ok((note, traits))
}

/// What a check said, for a note.
fn checked_note(stage: &Stage, checked: &Result<Vec<Finding>, PluginError>) -> Result<String, Stop> {
    match checked {
        Ok(findings) => {
            findings.iter().for_each(|finding| stage.heard.text("a finding of check", &finding.message));
            let warnings: Vec<_> = findings.iter().filter(|finding| finding.level == FindingLevel::Warning).collect();
            Ok(warnings.iter().map(|warning| format!("it warns: {}", shown(&warning.message))).collect::<Vec<_>>().join("; "))
        }
        Err(error) if matches!(error.class, ErrorClass::Internal | ErrorClass::Cancelled) => {
            Err(stage.refused("check", error, rules::CHECK))
        }
        Err(error) => {
            stage.heard.error(error);
            let class = error.class.name();
            if error.class == ErrorClass::InvalidConfig && error.key.is_none() {
                let seen = format!("check answered {class} without the key to blame: {}", shown(&error.message));
                return Err(failed(seen, rules::CONFIG));
            }
            Ok(format!("it answered {class}: {}", shown(&error.message)))
        }
    }
}
