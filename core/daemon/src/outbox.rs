//! The outbox between runs: sends what falls due and takes in what came of it.
//!
//! It asks no source anything, so that a source that is slow, changing or gone holds up nobody; and it
//! sends the tasks of all pipelines, whichever of them runs next.

use std::collections::{HashMap, HashSet};

use reunion_ledger::{ComponentKind, ComponentState};
use reunion_model::MemberId;
use reunion_outreach::Campaign;

use crate::app::App;
use crate::components::{self, Channels};
use crate::config::Diagnostics;
use crate::dispatch::{Clock, Dispatcher};
use crate::failure::Failure;
use crate::run::campaigns::window;
use crate::run::{StoredSchema, is_stale, members_of_sources, true_at};
use crate::state::{State, now_us};

/// Everything that sending needs, made once.
pub struct Outbox<'a> {
    app: &'a App,
    state: &'a State,
    channels: Channels,
    campaigns: HashMap<String, Campaign>,
    /// What the last pass said, so that a trouble that lasts is told once and not every few seconds.
    said: HashSet<String>,
}

impl<'a> Outbox<'a> {
    /// Makes the channels of the config. Those whose plugins fail are tried again with each pass.
    ///
    /// # Errors
    /// What is wrong with the config.
    pub fn new(app: &'a App, state: &'a State) -> Result<Self, Failure> {
        let channels = components::channels(&app.config, &app.plugins)?;
        Ok(Self { app, state, channels, campaigns: campaigns(app)?, said: HashSet::new() })
    }

    /// Takes in what came of tasks, and sends what is due now. Gives what the operator should know and has
    /// not been told by the pass before.
    ///
    /// # Errors
    /// Where the ledger refuses, or the head cannot be read.
    pub fn pass(&mut self, stopping: &dyn Fn() -> bool) -> Result<Vec<String>, Failure> {
        self.channels.make(&self.app.config, &self.app.plugins)?;
        let dispatcher = Dispatcher {
            config: &self.app.config,
            state: self.state,
            channels: &self.channels.made,
            campaigns: &self.campaigns,
            stale: Box::new(|members| stale(self.app, self.state, members)),
            clock: Clock::machine(),
            stopping,
        };
        let mut notes: Vec<String> = self.channels.troubles().collect();
        notes.extend(dispatcher.poll()?);
        notes.extend(dispatcher.pass()?.errors);
        Ok(news(&mut self.said, notes))
    }
}

/// The lines that were not among the last ones.
fn news(said: &mut HashSet<String>, notes: Vec<String>) -> Vec<String> {
    let before = std::mem::replace(said, notes.iter().cloned().collect());
    notes.into_iter().filter(|note| !before.contains(note)).collect()
}

/// The campaigns with what is asked of a task at the moment of sending. Its texts were made when it was
/// planned, so no template is compiled here.
fn campaigns(app: &App) -> Result<HashMap<String, Campaign>, Failure> {
    let mut made = HashMap::new();
    for (name, of) in &app.config.campaigns {
        let window = of.window.as_ref().map(window).transpose();
        let window = window.map_err(|error| Diagnostics::at(&app.config, &["campaigns", name, "window"], error, None))?;
        let (enabled, touches_max) = (of.enabled, of.touches_max);
        made.insert(name.clone(), Campaign { enabled, touches_max, window, ..Campaign::new(name.clone(), of.channel.clone()) });
    }
    Ok(made)
}

/// Which of these members have data of a source that is older now than the source's `max_age_hours`.
fn stale(app: &App, state: &State, members: &HashSet<MemberId>) -> Result<HashSet<MemberId>, Failure> {
    let none = HashSet::new();
    if members.is_empty() {
        return Ok(none);
    }
    let Some((_, head)) = state.head()? else { return Ok(none) };
    let schema = StoredSchema::of(Some(&head))?;
    let components = state.ask(state.ledger.components())?;
    let mut mask = 0_u64;
    for (bit, origin) in schema.order.iter().enumerate() {
        mask |= u64::from(is_source_stale(app, state, &components, origin)?) << bit;
    }
    if mask == 0 {
        return Ok(none);
    }
    members_of_sources(&head, members, mask)
}

/// Whether a source's last complete pull is too old. One that left the config has no say.
fn is_source_stale(app: &App, state: &State, components: &[ComponentState], origin: &str) -> Result<bool, Failure> {
    let component = components.iter().find(|of| of.kind == ComponentKind::Source && of.origin == origin);
    let name = component.map_or(origin, |component| component.name.as_str());
    let Some(source) = app.config.sources.get(name) else { return Ok(false) };
    let last = state.ask(state.ledger.source_state(name))?.last;
    Ok(is_stale(source, last.as_ref().map(true_at), now_us()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_that_lasts_is_told_once() {
        let mut said = HashSet::new();
        let notes = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(news(&mut said, notes("a b")), notes("a b"));
        assert_eq!(news(&mut said, notes("b c")), notes("c"));
        assert_eq!(news(&mut said, notes("")), notes(""));
        assert_eq!(news(&mut said, notes("a")), notes("a"), "it had ended, and is told again");
    }
}
