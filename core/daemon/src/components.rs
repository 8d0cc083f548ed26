//! The components of a config: each source and channel with its plugin loaded, its `with` table
//! checked, and an instance made of it.

use std::collections::BTreeMap;

use reunion_host::{ChannelConnector, Plugin, Plugins, SourceConnector};
use reunion_model::plugin::{PluginError, PluginKind, ReadMode};

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

/// Finds the plugin of a component and checks the component's `with` table by the plugin's schema.
///
/// # Errors
/// At the line of the config that is to blame.
pub fn settings(config: &Config, plugins: &Plugins, kind: Component, name: &str) -> Result<Settings, Diagnostics> {
    let (plugin_kind, plugin_name) = match kind {
        Component::Source => (PluginKind::Source, &config.sources[name].plugin),
        Component::Channel => (PluginKind::Channel, &config.channels[name].plugin),
    };
    let found = plugins.find(plugin_kind, plugin_name);
    let plugin = found.map_err(|error| Diagnostics::at(config, &[kind.table(), name, "plugin"], chain(&error), None))?;
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
    if findings.has_errors() { Err(findings) } else { Ok(Settings { plugin, with }) }
}

/// An error with everything that it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
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

/// An instance of a source's plugin.
///
/// # Errors
/// At the line of the config that is to blame.
pub fn source(config: &Config, plugins: &Plugins, name: &str) -> Result<Box<dyn SourceConnector>, Diagnostics> {
    let (plugin, with) = settings(config, plugins, Component::Source, name)?.with_secrets(config, Component::Source, name)?;
    plugin.source(name, &with).map_err(|error| blame(config, Component::Source, name, &error))
}

/// An instance of a channel's plugin.
///
/// # Errors
/// At the line of the config that is to blame.
pub fn channel(config: &Config, plugins: &Plugins, name: &str) -> Result<Box<dyn ChannelConnector>, Diagnostics> {
    let (plugin, with) = settings(config, plugins, Component::Channel, name)?.with_secrets(config, Component::Channel, name)?;
    plugin.channel(name, &with).map_err(|error| blame(config, Component::Channel, name, &error))
}

/// Instances of all channels, by name.
///
/// # Errors
/// All that is wrong with them.
pub fn channels(config: &Config, plugins: &Plugins) -> Result<BTreeMap<String, Box<dyn ChannelConnector>>, Diagnostics> {
    let mut findings = Diagnostics::default();
    let mut made = BTreeMap::new();
    for name in config.channels.keys() {
        match channel(config, plugins, name) {
            Ok(channel) => {
                made.insert(name.clone(), channel);
            }
            Err(error) => findings.extend(error),
        }
    }
    if findings.has_errors() { Err(findings) } else { Ok(made) }
}

/// A plugin's error at the key of the config that it blames.
pub fn blame(config: &Config, kind: Component, name: &str, error: &PluginError) -> Diagnostics {
    config.blame(kind, name, error.key.as_deref(), format!("{}: {}", error.class.name(), error.message), error.hint.clone())
}
