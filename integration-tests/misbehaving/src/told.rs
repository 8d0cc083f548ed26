//! What a component is told by its config, and when it is to be done.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use reunion_sdk::{Call, ErrorClass, PluginError, PluginKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::counter::Counter;
use crate::raw::{self, Patch, Which};
use crate::table::{Deed, Misbehaviour};

/// Where a misbehaviour can be told to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Making the component.
    Create,
    /// Channel: telling what it does.
    Describe,
    /// `check`.
    Check,
    /// Source: telling its columns.
    Schema,
    /// Source: beginning to read.
    Read,
    /// Source: an item of a read.
    Item,
    /// Channel: beginning to push, when nothing has been sent.
    Push,
    /// Channel: a batch of receipts of a push, when its tasks have been sent.
    Receipt,
    /// The end marker of a read or push.
    End,
    /// Channel: `poll`, or its first item.
    Poll,
    /// Channel: a request from outside, or the answer to it.
    Callback,
    /// Letting go of what a read or push has open: with its end marker, or when its stream is released before.
    Release,
    /// Ending the component.
    Destroy,
}

impl Stage {
    const OF_SOURCES: &[Self] = &[Self::Create, Self::Check, Self::Schema, Self::Read, Self::Item, Self::End, Self::Release, Self::Destroy];
    const OF_CHANNELS: &[Self] = &[
        Self::Create,
        Self::Describe,
        Self::Check,
        Self::Push,
        Self::Receipt,
        Self::End,
        Self::Poll,
        Self::Callback,
        Self::Release,
        Self::Destroy,
    ];

    /// Those that a plugin of this kind has.
    pub const fn of(kind: PluginKind) -> &'static [Self] {
        match kind {
            PluginKind::Source => Self::OF_SOURCES,
            PluginKind::Channel => Self::OF_CHANNELS,
        }
    }

    /// As in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Describe => "describe",
            Self::Check => "check",
            Self::Schema => "schema",
            Self::Read => "read",
            Self::Item => "item",
            Self::Push => "push",
            Self::Receipt => "receipt",
            Self::End => "end",
            Self::Poll => "poll",
            Self::Callback => "callback",
            Self::Release => "release",
            Self::Destroy => "destroy",
        }
    }

    /// Whether what is called there can answer with an error.
    pub(crate) const fn can_fail(self) -> bool {
        !matches!(self, Self::Describe | Self::Release | Self::Destroy)
    }
}

/// The keys of the config that tell of it, beside those of the well-behaved plugin.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Keys {
    #[serde(rename = "do")]
    name: Option<String>,
    at: Option<Stage>,
    after_rows: usize,
    once_file: Option<PathBuf>,
    counter_file: Option<PathBuf>,
}

impl Keys {
    /// These keys and the plugin's own, as JSON Schema.
    pub(crate) fn schema(kind: PluginKind, required: &[&str], own: Value) -> Value {
        let names: Vec<_> = Misbehaviour::of(kind).map(|one| one.name).collect();
        let stages: Vec<_> = Stage::of(kind).iter().map(|stage| stage.name()).collect();
        let told = json!({
            "do": {"enum": names, "description": "how to misbehave"},
            "at": {"enum": stages, "description": "where to misbehave"},
            "after_rows": {"type": "integer", "minimum": 0, "default": 0, "description": "rows, or receipts, before an item misbehaves"},
            "once_file": {"type": "string", "format": "path", "access": "write", "minLength": 1, "description": "misbehave only while this file is not there, and make it"},
            "counter_file": {"type": "string", "format": "path", "access": "write", "minLength": 1, "description": "a line is appended for each call and each task"}
        });
        let mut properties = Map::new();
        for keys in [own, told] {
            properties.extend(keys.as_object().cloned().unwrap_or_default());
        }
        json!({"type": "object", "required": required, "additionalProperties": false, "properties": properties})
    }

    /// # Errors
    /// Invalid config where there is no such misbehaviour, or it cannot be done there.
    pub(crate) fn told(self, kind: PluginKind) -> Result<Arc<Told>, PluginError> {
        let order = match (self.name, self.at) {
            (None, None) => None,
            (Some(name), Some(at)) => {
                let deed = Misbehaviour::of(kind).find(|one| one.name == name);
                let deed = deed.ok_or_else(|| invalid("do", format!("a {} cannot do {name:?}", kind.name())))?;
                let stages = deed.stages(kind);
                if !stages.contains(&at) {
                    let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
                    return Err(invalid("at", format!("{name} can be done at: {}", stages.join(", "))));
                }
                Some(Order { deed, at, after_rows: self.after_rows, once_file: self.once_file })
            }
            (Some(_), None) => return Err(invalid("at", "what to do is told, and not where".to_owned())),
            (None, Some(_)) => return Err(invalid("do", "it is told where to do something, and not what".to_owned())),
        };
        Ok(Arc::new(Told { order, counter: Counter::new(self.counter_file) }))
    }
}

fn invalid(key: &str, message: String) -> PluginError {
    PluginError::new(ErrorClass::InvalidConfig, message).key(key)
}

/// What a component was told.
#[derive(Debug)]
pub(crate) struct Told {
    order: Option<Order>,
    pub(crate) counter: Counter,
}

struct Order {
    deed: &'static Misbehaviour,
    at: Stage,
    after_rows: usize,
    once_file: Option<PathBuf>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.deed.name, self.at.name())
    }
}

impl Told {
    /// Misbehaves, if this is where to. To be called by the well-behaved code wherever there is a stage.
    ///
    /// # Errors
    /// Where the misbehaviour is an error; where the file that says that it was done cannot be made.
    pub(crate) fn reach(&self, at: Stage, call: Option<&Call>) -> Result<(), PluginError> {
        match &self.order {
            Some(order) if order.at == at => order.carry_out(call),
            _ => Ok(()),
        }
    }

    /// The same where nobody takes an error.
    pub(crate) fn reach_quietly(&self, at: Stage, call: Option<&Call>) {
        if let Err(error) = self.reach(at, call) {
            tracing::error!(%error, "what was told could not be done");
        }
    }

    /// Counts a call, and misbehaves if this is where to.
    ///
    /// # Errors
    /// As [`Told::reach`], and where it cannot be counted.
    pub(crate) fn called(&self, at: Stage, call: &Call) -> Result<(), PluginError> {
        if !call.dry_run() {
            self.counter.append(&format!("call {}\n", at.name()))?;
        }
        self.reach(at, Some(call))
    }

    /// The row before which a batch must end, so that what comes next is the item after just so many rows.
    pub(crate) fn cut(&self, rows: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let cut = self.order.as_ref().map(|order| order.after_rows).filter(|cut| rows.start < *cut && *cut < rows.end);
        rows.start..cut.unwrap_or(rows.end)
    }
}

impl Order {
    fn carry_out(&self, call: Option<&Call>) -> Result<(), PluginError> {
        if !self.is_first_time()? {
            return Ok(());
        }
        match self.deed.deed {
            Deed::Act(act) => act(call),
            Deed::Fail(error) => return Err(error()),
            Deed::Items(_, replace) => raw::tell(Patch::Items(replace)),
            Deed::Stream(spoil) => raw::tell(Patch::Stream(spoil)),
            Deed::Answer(spoil) => raw::tell(Patch::Answer(spoil)),
        }
        Ok(())
    }

    /// Whether the file that says that it was done was not there. It is now.
    fn is_first_time(&self) -> Result<bool, PluginError> {
        let Some(path) = &self.once_file else { return Ok(true) };
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => {
                let message = format!("{} cannot be made: {error}", path.display());
                Err(PluginError::new(ErrorClass::Internal, message).key("once_file"))
            }
        }
    }

    fn takes(&self, which: Which) -> bool {
        match self.deed.deed {
            Deed::Items(wanted, _) => wanted.takes(which),
            _ => true,
        }
    }
}

/// The stream of a read or push: it misbehaves at one item, or from one on, and when it is let go of.
pub(crate) struct Watch {
    told: Arc<Told>,
    call: Call,
    is_done: bool,
}

impl Watch {
    pub(crate) fn new(told: &Arc<Told>, call: &Call) -> Self {
        Self { told: Arc::clone(told), call: call.clone(), is_done: false }
    }

    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    /// Before an item of this kind is handed out, `rows` having come before it.
    ///
    /// # Errors
    /// As [`Told::reach`].
    pub(crate) fn item(&mut self, at: Stage, which: Which, rows: usize) -> Result<(), PluginError> {
        let Some(order) = self.told.order.as_ref().filter(|order| order.at == at) else { return Ok(()) };
        let is_due = order.deed.each_item || !self.is_done;
        if !is_due || !order.takes(which) || (at != Stage::End && rows < order.after_rows) {
            return Ok(());
        }
        self.is_done = true;
        order.carry_out(Some(&self.call))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.told.reach_quietly(Stage::Release, Some(&self.call));
    }
}
