//! The campaigns of the config as outreach takes them, and the rules as `rules` takes them.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::Schema;
use jiff::civil::Weekday;
use reunion_host::ChannelConnector;
use reunion_outreach::{Campaign, Template, TemplateError, Window};
use reunion_rules::{AudienceRule, RuleError, RuleName, Rules, TagRule};

use crate::config::{self, Config, Diagnostics};

/// The campaigns by name, with their templates compiled against the columns of members and with what
/// their channels ask. One whose channel is not there is paused.
///
/// # Errors
/// Everything that is wrong with them, at its line.
pub fn campaigns(
    config: &Config,
    channels: &BTreeMap<String, Box<dyn ChannelConnector>>,
    members: &Schema,
) -> Result<HashMap<String, Campaign>, Diagnostics> {
    let mut findings = Diagnostics::default();
    let mut made = HashMap::new();
    for (name, of) in &config.campaigns {
        let message = template(config, name, "message", of.message.as_deref(), members).map_err(|error| findings.extend(error));
        let reason = template(config, name, "reason", of.reason.as_deref(), members).map_err(|error| findings.extend(error));
        let (Ok(message), Ok(reason)) = (message, reason) else { continue };
        let window = match of.window.as_ref().map(window).transpose() {
            Ok(window) => window,
            Err(error) => {
                findings.extend(Diagnostics::at(config, &["campaigns", name, "window"], error, None));
                continue;
            }
        };
        let campaign = Campaign {
            enabled: of.enabled,
            holdout: of.holdout,
            touches_max: of.touches_max,
            gap_days: of.gap_days.unwrap_or(0),
            per_run_max: of.per_run_max,
            per_store_per_day_max: of.per_store_per_day_max,
            window,
            due_days: of.due_days,
            message,
            reason,
            ..Campaign::new(name.clone(), of.channel.clone())
        };
        let Some(channel) = channels.get(&of.channel) else {
            made.insert(name.clone(), Campaign { paused: true, ..campaign });
            continue;
        };
        match campaign.through(channel.traits()) {
            Ok(campaign) => {
                made.insert(name.clone(), campaign);
            }
            Err(error) => findings.extend(Diagnostics::at(config, &["campaigns", name], error.to_string(), None)),
        }
    }
    if findings.has_errors() { Err(findings) } else { Ok(made) }
}

/// A time window as outreach takes it.
///
/// # Errors
/// What is wrong with it, in words.
pub fn window(of: &config::Window) -> Result<Window, String> {
    let days: Vec<Weekday> = of.days.iter().map(|day| day.weekday()).collect();
    Window::new(of.from.0, of.to.0, &days).map_err(|error| error.to_string())
}

fn template(config: &Config, campaign: &str, key: &str, text: Option<&str>, members: &Schema) -> Result<Option<Template>, Diagnostics> {
    let Some(text) = text else { return Ok(None) };
    Template::compile(text, members).map(Some).map_err(|errors| {
        let mut findings = Diagnostics::default();
        for error in errors {
            findings.extend(template_error(config, &["campaigns", campaign, key], error));
        }
        findings
    })
}

/// What is wrong with a template, at its line.
pub fn template_error(config: &Config, key: &[&str], error: TemplateError) -> Diagnostics {
    let help = error.suggestion.map(|near| format!("did you mean `{near}`?"));
    match error.range {
        Some(range) => Diagnostics::at_offset(config, key, range.start, range.len(), error.message, help),
        None => Diagnostics::at(config, key, error.message, help),
    }
}

/// The rules of the config, compiled against the columns of members.
///
/// # Errors
/// Everything that is wrong with them, at its line.
pub fn rules(config: &Config, members: &Schema) -> Result<Rules, Diagnostics> {
    compile(config, members).map_err(|errors| rule_errors(config, errors))
}

/// As [`rules`], with the errors as they are.
///
/// # Errors
/// Every rule that is wrong.
pub fn compile(config: &Config, members: &Schema) -> Result<Rules, Vec<RuleError>> {
    let tags: Vec<TagRule> = config.tags.iter().map(|(name, tag)| TagRule { name: name.clone(), when: tag.when.clone() }).collect();
    let audience =
        |(name, campaign): (&String, &config::Campaign)| AudienceRule { campaign: name.clone(), audience: campaign.audience.clone() };
    let audiences: Vec<AudienceRule> = config.campaigns.iter().map(audience).collect();
    Rules::compile(members, &tags, &audiences, config.timezone.name())
}

/// What is wrong with rules, each at its line.
pub fn rule_errors(config: &Config, errors: Vec<RuleError>) -> Diagnostics {
    let mut findings = Diagnostics::default();
    for RuleError { rule, message, span, suggestion, .. } in errors {
        let key: [&str; 3] = match &rule {
            RuleName::Tag(name) => ["tags", name, "when"],
            RuleName::Audience(name) => ["campaigns", name, "audience"],
        };
        findings.extend(match span {
            Some((offset, length)) => Diagnostics::at_offset(config, &key, offset, length, message, suggestion),
            None => Diagnostics::at(config, &key, message, suggestion),
        });
    }
    findings
}
