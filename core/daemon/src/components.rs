//! The components of a config: each source and channel with its plugin loaded, its `with` table
//! checked, and an instance made of it.

use std::collections::BTreeMap;

use reunion_host::{ChannelConnector, ComponentSpec, Part, Plugin, Plugins, SourceConnector};
use reunion_model::plugin::{ErrorClass, PluginError, PluginKind, ReadMode};

use crate::config::{Component, Config, Diagnostics};

/// The plugin of a component, with the component's checked settings.
pub struct Settings {
    /// The plugin.
    pub plugin: Plugin,
    /// The component's `with` table, which says where its secrets are.
    pub with: serde_json::Value,
}

impl Settings {
    /// The plugin, and the `with` table with the component's secrets in it.
    ///
    /// # Errors
    /// At the line of the config that is to blame.
    pub fn with_secrets(self, config: &Config, kind: Component, name: &str) -> Result<(Plugin, serde_json::Value), Diagnostics> {
        let with = config.with_secrets(kind, name, self.with, &self.plugin.manifest().config_schema)?;
        Ok((self.plugin, with))
    }
}

/// Why there is no component.
pub enum Trouble {
    /// The config is wrong: nothing can be done before it is mended.
    Config(Diagnostics),
    /// Its plugin failed, which is the trouble of this component alone.
    Plugin(PluginError),
}

impl From<Diagnostics> for Trouble {
    fn from(findings: Diagnostics) -> Self {
        Self::Config(findings)
    }
}

impl Trouble {
    /// The same as findings about the component's place in the config.
    pub fn findings(self, config: &Config, kind: Component, name: &str) -> Diagnostics {
        match self {
            Self::Config(findings) => findings,
            Self::Plugin(error) => blame(config, kind, name, &error),
        }
    }

    /// An error of the plugin in making the component. What it has against the config is one of the config.
    fn of(config: &Config, kind: Component, name: &str, error: PluginError) -> Self {
        match error.class {
            ErrorClass::InvalidConfig => Self::Config(blame(config, kind, name, &error)),
            _ => Self::Plugin(error),
        }
    }
}

/// Finds the plugin of a component and checks the component's `with` table by the plugin's schema.
///
/// # Errors
/// At the line of the config that is to blame; or the plugin's library brings down who looks at it.
pub fn settings(config: &Config, plugins: &Plugins, kind: Component, name: &str) -> Result<Settings, Trouble> {
    let (plugin_name, sha256) = match kind {
        Component::Source => (&config.sources[name].plugin, &config.sources[name].sha256),
        Component::Channel => (&config.channels[name].plugin, &config.channels[name].sha256),
    };
    let plugin = plugins.find_pinned(plugin_kind(kind), plugin_name, sha256.as_deref()).map_err(|error| match error.is_crash() {
        true => Trouble::Plugin(PluginError::new(ErrorClass::Internal, chain(&error))),
        false => {
            let key = if error.is_pin() { "sha256" } else { "plugin" };
            Trouble::Config(Diagnostics::at(config, &[kind.table(), name, key], chain(&error), None))
        }
    })?;
    let with = config.with_values(kind, name, &plugin.manifest().config_schema);
    let mut findings = Diagnostics::default();
    for error in reunion_host::schema::validate(&with, &plugin.manifest().config_schema) {
        let key = error.path.join(".");
        let help = error.suggestion.map(|near| format!("did you mean `{near}`?"));
        findings.extend(config.blame(kind, name, Some(&key), error.message, help));
    }
    if let Component::Source = kind {
        findings.extend(mode(config, &plugin, name));
    }
    if findings.has_errors() { Err(findings.into()) } else { Ok(Settings { plugin, with }) }
}

/// The kind of plugin that a component has.
pub const fn plugin_kind(kind: Component) -> PluginKind {
    match kind {
        Component::Source => PluginKind::Source,
        Component::Channel => PluginKind::Channel,
    }
}

/// How a part of a component is run.
fn spec(config: &Config, kind: Component, name: &str, part: Part) -> ComponentSpec {
    let (isolation, limits, sha256) = match kind {
        Component::Source => (config.sources[name].isolation, config.sources[name].limits, &config.sources[name].sha256),
        Component::Channel => (config.channels[name].isolation, config.channels[name].limits, &config.channels[name].sha256),
    };
    ComponentSpec { isolation, limits: limits.into(), sha256: sha256.clone(), part, ..ComponentSpec::new(plugin_kind(kind), name) }
}

/// An error with everything that it comes from, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn mode(config: &Config, plugin: &Plugin, name: &str) -> Diagnostics {
    let wanted = match config.sources[name].mode {
        ReadMode::Incremental => "incremental",
        ReadMode::Snapshot => "snapshot",
    };
    let modes = &plugin.manifest().capabilities.modes;
    // A manifest that names none reads in either.
    if modes.is_empty() || modes.iter().any(|mode| mode == wanted) {
        return Diagnostics::default();
    }
    let message = format!("the plugin `{}` does not read in the mode `{wanted}`", plugin.manifest().name);
    Diagnostics::at(config, &["sources", name, "mode"], message, Some(format!("its modes: {}", modes.join(", "))))
}

/// A source, whose worker is started.
///
/// # Errors
/// At the line of the config that is to blame, or what became of the plugin.
pub fn source(config: &Config, plugins: &Plugins, name: &str) -> Result<Box<dyn SourceConnector>, Trouble> {
    let kind = Component::Source;
    let (plugin, with) = settings(config, plugins, kind, name)?.with_secrets(config, kind, name)?;
    plugins.source(&plugin, spec(config, kind, name, Part::Work), with).map_err(|error| Trouble::of(config, kind, name, error))
}

/// A channel, whose worker is started.
///
/// # Errors
/// At the line of the config that is to blame, or what became of the plugin.
pub fn channel(config: &Config, plugins: &Plugins, name: &str) -> Result<Box<dyn ChannelConnector>, Trouble> {
    channel_for(config, plugins, name, Part::Work)
}

/// A channel for this part, whose worker is started.
///
/// # Errors
/// See [`channel`].
pub fn channel_for(config: &Config, plugins: &Plugins, name: &str, part: Part) -> Result<Box<dyn ChannelConnector>, Trouble> {
    let kind = Component::Channel;
    let (plugin, with) = settings(config, plugins, kind, name)?.with_secrets(config, kind, name)?;
    plugins.channel(&plugin, spec(config, kind, name, part), with).map_err(|error| Trouble::of(config, kind, name, error))
}

/// The channels of a config, by name.
#[derive(Default)]
pub struct Channels {
    /// Those that can be given tasks.
    pub made: BTreeMap<String, Box<dyn ChannelConnector>>,
    /// Those whose plugins failed before they could say what they do. Their tasks wait.
    pub failed: BTreeMap<String, PluginError>,
}

impl Channels {
    /// Makes those that failed, where they may be tried again by now.
    ///
    /// # Errors
    /// All that is wrong with the config.
    pub fn make(&mut self, config: &Config, plugins: &Plugins) -> Result<(), Diagnostics> {
        let mut findings = Diagnostics::default();
        for name in config.channels.keys().filter(|name| !self.made.contains_key(*name)).collect::<Vec<_>>() {
            match channel(config, plugins, name) {
                Ok(channel) => {
                    self.failed.remove(name);
                    self.made.insert(name.clone(), channel);
                }
                Err(Trouble::Plugin(error)) => {
                    self.failed.insert(name.clone(), error);
                }
                Err(Trouble::Config(errors)) => findings.extend(errors),
            }
        }
        if findings.has_errors() { Err(findings) } else { Ok(()) }
    }

    /// A line for each that failed.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.failed.iter().map(|(name, error)| format!("channel {name}: {error}"))
    }
}

/// Makes all channels.
///
/// # Errors
/// All that is wrong with the config.
pub fn channels(config: &Config, plugins: &Plugins) -> Result<Channels, Diagnostics> {
    let mut channels = Channels::default();
    channels.make(config, plugins).map(|()| channels)
}

/// A plugin's error at the key of the config that it blames.
pub fn blame(config: &Config, kind: Component, name: &str, error: &PluginError) -> Diagnostics {
    config.blame(kind, name, error.key.as_deref(), format!("{}: {}", error.class.name(), error.message), error.hint.clone())
}
