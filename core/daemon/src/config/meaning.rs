//! Checks what one key alone cannot tell: names that refer to something, keys that need each other, and
//! names that are taken.

use reunion_model::plugin::ReadMode;
use reunion_model::schema::{self, ColumnType, Rule, Survivorship};
use reunion_model::{Consent, Purpose, record};

use super::columns::{fitting, fixed_type, misfit, taken, with_article};
use super::diagnostics::{Diagnostic, Diagnostics, did_you_mean, nearest};
use super::types::KeyLimits;
use super::{Address, Column, Config, Sweep};
use crate::config::document::Value;

/// A member remembers which sources it is in as one bit each.
const SOURCES_MAX: usize = 64;
/// Words of SQL that would hide a tag of that name.
const SQL_WORDS: &[&str] = &[
    "all", "and", "any", "as", "between", "case", "cast", "else", "end", "exists", "false", "from", "in", "interval", "is", "like", "not",
    "null", "or", "select", "then", "true", "when", "where",
];

/// All findings, errors and warnings.
pub fn check(config: &Config) -> Diagnostics {
    let mut check = Check { config, findings: Diagnostics::new(config.document.files.clone()) };
    check.key_source();
    check.sources();
    check.phone();
    check.identity();
    check.tags();
    check.campaigns();
    check.channels();
    check.pipelines();
    if let Some(Address(address)) = config.http.listen.filter(|Address(address)| !address.ip().is_loopback()) {
        let message = format!("other machines reach {address} without TLS: let it be 127.0.0.1, or see that nobody but a proxy can");
        check.warn(&["http", "listen"], message);
    }
    if config.testing.clock {
        check.warn(&["testing", "clock"], "the clock may be set by --now: channels that reach beyond this machine are refused");
    }
    check.findings
}

struct Check<'a> {
    config: &'a Config,
    findings: Diagnostics,
}

impl Check<'_> {
    fn at(&self, key: &[&str], message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.config.document.locate(key), message)
    }

    fn error(&mut self, key: &[&str], message: impl Into<String>, help: impl Into<String>) {
        let finding = self.at(key, message).help(help);
        self.findings.push(finding);
    }

    fn warn(&mut self, key: &[&str], message: impl Into<String>) {
        let place = self.config.document.locate(key);
        self.findings.push(Diagnostic::warning(place, message));
    }

    fn key_source(&mut self) {
        if let super::KeySource::Credential(name) = &self.config.state.key
            && (name.contains('/') || name.starts_with('.'))
        {
            self.error(&["state", "key", "credential"], format!("`{name}` is no name of a credential"), "for a path use { file = \"…\" }");
        }
    }

    fn sources(&mut self) {
        let sources = &self.config.sources;
        if let Some((name, _)) = sources.get_index(SOURCES_MAX) {
            let message = format!("there are {} sources, and {SOURCES_MAX} are allowed", sources.len());
            self.error(&["sources", name], message, "read several files by one source: its path may be a pattern");
        }
        for (name, source) in sources {
            match (source.mode, &source.sweep) {
                (ReadMode::Incremental, None) => {
                    let message = format!("the incremental source `{name}` does not say when it is read whole");
                    let help = "add sweep = \"0 3 * * *\", or sweep = \"never\" if deletions and late changes may stay unseen";
                    self.error(&["sources", name, "mode"], message, help);
                }
                (ReadMode::Snapshot, Some(Sweep::At(_))) => {
                    let help = "remove `sweep`, or set mode = \"incremental\"";
                    self.error(&["sources", name, "sweep"], "a snapshot is always read whole", help);
                }
                _ => {}
            }
            if !source.key.is_empty() && source.columns.contains_key(record::RECORD_ID) {
                let message = format!("the source `{name}` has both `key` and a column mapped to `record_id`");
                let other = self.config.document.locate(&["sources", name, "columns", record::RECORD_ID]);
                let finding = self.at(&["sources", name, "key"], message).related(other, "mapped here");
                self.findings.push(finding.help("keep the column if it is unique and stays with its row; else keep `key`"));
            }
            for (to, column) in &source.columns {
                self.column(name, to, column);
            }
            if !self.config.pipelines.is_empty() && !self.config.pipelines.values().any(|pipeline| pipeline.sources.contains(name)) {
                self.warn(&["sources", name], format!("no pipeline pulls the source `{name}`"));
            }
        }
        self.types_across_sources();
    }

    fn column(&mut self, source: &str, to: &str, column: &Column) {
        let key = ["sources", source, "columns", to];
        if let Some(what) = taken(to) {
            self.error(&key, format!("`{to}` is {what}, which no source can give"), "choose another name");
            return;
        }
        if self.config.is_tag_column(to) {
            let tag = self.config.tags.contains_key(to).then_some(to).or_else(|| to.strip_suffix("_since")).unwrap_or(to);
            let other = self.config.document.locate(&["tags", tag]);
            let finding = self.at(&key, format!("`{to}` is a column of the tag `{tag}`")).related(other, "the tag");
            self.findings.push(finding.help("rename the one or the other"));
            return;
        }
        let fixed = fixed_type(to);
        let inner = |name| ["sources", source, "columns", to, name];
        if let (Some(fixed), Some(declared)) = (fixed, column.kind)
            && fixed != declared
        {
            let help = "remove `type`, or keep the column under another name";
            self.error(&inner("type"), format!("`{to}` is always {}, not {}", with_article(fixed), with_article(declared)), help);
        }
        let kind = fixed.or(column.kind).unwrap_or(ColumnType::Text);
        if fixed.is_none() && column.kind.is_none() {
            let names = schema::COLUMNS.iter().map(|column| column.name).chain([record::RECORD_ID, record::PHONE]);
            if let Some(near) = nearest(to, names) {
                let place = self.config.document.locate(&key);
                let finding = Diagnostic::warning(place, format!("`{to}` is no name of ours, and is kept as a further column"));
                self.findings.push(finding.help(format!("did you mean `{near}`?")));
            }
        }
        self.column_details(&inner, to, column, kind);
    }

    fn column_details<'b>(&mut self, inner: &impl Fn(&'b str) -> [&'b str; 5], to: &str, column: &Column, kind: ColumnType) {
        let is_time = matches!(kind, ColumnType::Timestamp | ColumnType::Date);
        let misplaced = [
            ("unit", column.unit.is_some() && kind != ColumnType::Decimal, "a decimal"),
            ("format", column.format.is_some() && !is_time, "a timestamp or a date"),
            ("timezone", column.timezone.is_some() && kind != ColumnType::Timestamp, "a timestamp"),
        ];
        for (name, wrong, wanted) in misplaced {
            if wrong {
                let help = if fixed_type(to).is_some() { format!("remove `{name}`") } else { "declare its `type`".to_owned() };
                self.error(&inner(name), format!("`{name}` is for {wanted}, and `{to}` is {}", with_article(kind)), help);
            }
        }
        if let Some(format) = column.format.as_ref().filter(|_| is_time) {
            let epoch = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
            if let Err(error) = jiff::fmt::strtime::format(format, &epoch) {
                let error = error.to_string();
                let error = error.rsplit(": ").next().unwrap_or(&error);
                let help = "for example \"%Y/%m/%d %H:%M:%S\"";
                self.error(&inner("format"), format!("the format cannot be used: {error}"), help);
            }
        }
        self.values(inner, to, column);
    }

    /// The words that a column with known values may be mapped to.
    fn values<'b>(&mut self, inner: &impl Fn(&'b str) -> [&'b str; 5], to: &str, column: &Column) {
        let consents = Purpose::ALL.map(|purpose| format!("{}_consent", purpose.name()));
        let known: &[&str] = if consents.iter().any(|name| name == to) {
            &[Consent::Granted.name(), Consent::Withdrawn.name(), Consent::Unknown.name()]
        } else if to == "gender" {
            &["female", "male", "unknown"]
        } else {
            return;
        };
        for (word, meaning) in column.values.iter().filter(|(_, meaning)| !known.contains(&meaning.as_str())) {
            let [sources, source, columns, to, values] = inner("values");
            let message = format!("`{to}` does not know \"{meaning}\"");
            self.error(&[sources, source, columns, to, values, word], message, did_you_mean(meaning, "it knows", known.iter().copied()));
        }
    }

    fn types_across_sources(&mut self) {
        let mut declared: Vec<(&str, &str, ColumnType)> = Vec::new();
        for (source, definition) in &self.config.sources {
            for (to, column) in &definition.columns {
                let Some(kind) = column.kind.filter(|_| fixed_type(to).is_none()) else { continue };
                match declared.iter().find(|(name, ..)| name == to) {
                    Some((_, first, other)) if *other != kind => {
                        let place = self.config.document.locate(&["sources", first, "columns", to, "type"]);
                        let message =
                            format!("`{to}` is {} in the source `{first}` and {} in `{source}`", with_article(*other), with_article(kind));
                        let finding = self.at(&["sources", source, "columns", to, "type"], message).related(place, "declared first here");
                        self.findings.push(finding.help("a column has one type in all sources"));
                    }
                    Some(_) => {}
                    None => declared.push((to, source, kind)),
                }
            }
        }
    }

    fn phone(&mut self) {
        let phone = &self.config.phone;
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        for (at, number) in phone.placeholders.iter().enumerate() {
            if number.len() != 11 || !is_digits(number) {
                let message = format!("a placeholder has 11 digits, and this one has {} characters", number.chars().count());
                self.error(&["phone", "placeholders", &at.to_string()], message, "write it as \"13800000000\"");
            }
        }
        for (key, prefixes) in [("allow_prefixes", &phone.allow_prefixes), ("deny_prefixes", &phone.deny_prefixes)] {
            for (at, prefix) in prefixes.iter().enumerate() {
                if !(3..=7).contains(&prefix.len()) || !is_digits(prefix) || !prefix.starts_with('1') {
                    let message = format!("`{prefix}` is no beginning of mobile numbers");
                    self.error(&["phone", key, &at.to_string()], message, "write three to seven digits, 1 first: \"199\"");
                }
            }
        }
        for (at, prefix) in phone.deny_prefixes.iter().enumerate() {
            if let Some(allowed) = phone.allow_prefixes.iter().position(|allowed| allowed == prefix) {
                let other = self.config.document.locate(&["phone", "allow_prefixes", &allowed.to_string()]);
                let finding = self.at(&["phone", "deny_prefixes", &at.to_string()], format!("`{prefix}` is both allowed and denied"));
                self.findings.push(finding.related(other, "allowed here").help("keep one of the two"));
            }
        }
    }

    fn identity(&mut self) {
        self.identity_keys();
        self.identity_limits();
        self.survivorship();
    }

    fn identity_keys(&mut self) {
        let identity = &self.config.identity;
        if !identity.keys.iter().any(|columns| *columns == [record::PHONE]) {
            self.error(&["identity", "keys"], "`phone` is not among the keys", "add it: rows without a usable phone are quarantined");
        }
        for (at, columns) in identity.keys.iter().enumerate() {
            for (place, column) in columns.iter().enumerate() {
                let is_alone = columns.len() == 1;
                if let Some(problem) = self.no_key(column, is_alone) {
                    let (at, place) = (at.to_string(), place.to_string());
                    let key = if is_alone { vec!["identity", "keys", &at] } else { vec!["identity", "keys", &at, &place] };
                    let help = if is_alone {
                        "keys are texts or whole numbers that a source gives, such as an id in a messenger"
                    } else {
                        "keys are texts, whole numbers and dates that a source gives"
                    };
                    self.error(&key, format!("`{column}` cannot be a key: it {problem}"), help);
                }
            }
        }
    }

    /// Why a column cannot be a key. A date is one beside others: many people are born on the same day.
    fn no_key(&self, column: &str, is_alone: bool) -> Option<String> {
        if let Some(what) = taken(column) {
            return Some(format!("is {what}"));
        }
        if column == record::RECORD_ID {
            return Some("tells the rows of one source apart, not people".to_owned());
        }
        if self.config.is_tag_column(column) {
            return Some("is a tag".to_owned());
        }
        let kind = fixed_type(column).or_else(|| self.declared_type(column))?;
        let fits = matches!(kind, ColumnType::Text | ColumnType::Integer) || (kind == ColumnType::Date && !is_alone);
        (!fits).then(|| format!("is {}", with_article(kind)))
    }

    fn identity_limits(&mut self) {
        let identity = &self.config.identity;
        for (column, limits) in &identity.limits {
            let key = ["identity", "limits", column.as_str()];
            let with = |name| ["identity", "limits", column.as_str(), name];
            if !identity.keys.iter().flatten().any(|named| named == column) {
                let help = did_you_mean(column, "keys", identity.keys.iter().flatten().map(String::as_str));
                self.error(&key, format!("`{column}` is no key, so it has no limits"), help);
            } else if column == record::PHONE && limits.records_max != KeyLimits::RECORDS_MAX {
                let help = "remove it, and set `cards_max` of [identity.shared_phone]";
                self.error(&with("records_max"), "a phone has a limit of its own", help);
            } else if column == record::PHONE && !limits.blocked.is_empty() {
                self.error(
                    &with("blocked"),
                    "numbers that are nobody's have a list of their own",
                    "move them to `placeholders` of [phone]",
                );
            }
        }
    }

    fn survivorship(&mut self) {
        let identity = &self.config.identity;
        for (name, rule) in &identity.survivorship {
            self.rule(name, rule);
        }
    }

    /// `[identity.survivorship]` of one column.
    fn rule(&mut self, name: &str, rule: &Rule) {
        let key = ["identity", "survivorship", name, "rule"];
        let kind = fixed_type(name).or_else(|| self.declared_type(name));
        if let Some(what) = taken(name) {
            self.error(&key, format!("`{name}` is {what} and is not chosen from rows"), "remove the line");
        } else if name == record::PHONE || name == record::RECORD_ID {
            self.error(&key, format!("`{name}` has a rule of its own"), "remove the line");
        } else if schema::canonical(name).is_some_and(|column| column.survivorship == Survivorship::Consent) {
            self.error(&key, format!("`{name}` has the rule of consents, which cannot be changed"), "remove the line");
        } else if let Some(kind) = kind.filter(|kind| !rule.survivorship.fits(*kind)) {
            self.error(&key, misfit(name, rule.survivorship, kind), fitting(kind));
        } else if fixed_type(name).is_none() && !self.is_mapped(name) {
            let place = self.config.document.locate(&key);
            let known = schema::COLUMNS.iter().map(|column| column.name);
            let finding = Diagnostic::warning(place, format!("no source maps a column to `{name}`"));
            let near = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
            self.findings.push(if let Some(near) = near { finding.help(near) } else { finding });
        }
        let key = |last| ["identity", "survivorship", name, last];
        let takes_sources = rule.survivorship == Survivorship::SourcePriority;
        for (at, source) in rule.sources.iter().enumerate().filter(|_| takes_sources) {
            let key = ["identity", "survivorship", name, "sources", &at.to_string()];
            self.reference(&key, source, "source", self.config.sources.keys());
        }
        if takes_sources && rule.sources.is_empty() {
            let sources: Vec<_> = self.config.sources.keys().map(|source| format!("\"{source}\"")).collect();
            let help =
                format!("write {name} = {{ rule = \"source_priority\", sources = [{}] }} in the order that you want", sources.join(", "));
            self.error(&key("rule"), format!("the rule of `{name}` does not say which source comes first"), help);
        }
        if !takes_sources && !rule.sources.is_empty() {
            let message = format!("`{}` does not look at sources", rule.survivorship.name());
            self.error(&key("sources"), message, "remove `sources`, or set rule = \"source_priority\"");
        }
        if rule.survivorship != Survivorship::Union && rule.separator.is_some() {
            let message = format!("`{}` has no separator", rule.survivorship.name());
            self.error(&key("separator"), message, "remove `separator`, or set rule = \"union\"");
        }
    }

    fn is_mapped(&self, name: &str) -> bool {
        self.config.sources.values().any(|source| source.columns.contains_key(name))
    }

    fn declared_type(&self, name: &str) -> Option<ColumnType> {
        self.config.sources.values().find_map(|source| source.columns.get(name)?.kind)
    }

    fn tags(&mut self) {
        let tags = &self.config.tags;
        for name in tags.keys() {
            let key = ["tags", name.as_str()];
            let since = format!("{name}_since");
            let column = [name.as_str(), since.as_str()].into_iter().find_map(|column| {
                let what = taken(column).or_else(|| fixed_type(column).map(|_| "a column of members"))?;
                Some((column, what))
            });
            if let Some((column, what)) = column {
                self.error(&key, format!("the tag `{name}` would give a column `{column}`, which is {what}"), "rename the tag");
            } else if SQL_WORDS.contains(&name.as_str()) {
                self.error(&key, format!("`{name}` is a word of SQL, so that no rule could name the tag"), "rename the tag");
            } else if tags.contains_key(&since) {
                let other = self.config.document.locate(&["tags", &since]);
                let finding = self.at(&key, format!("the tag `{name}` gives a column `{since}`, which is a tag of its own"));
                self.findings.push(finding.related(other, "the other tag").help("rename one of the two"));
            }
        }
    }

    fn campaigns(&mut self) {
        for (name, campaign) in &self.config.campaigns {
            self.reference(&["campaigns", name, "channel"], &campaign.channel, "channel", self.config.channels.keys());
            let key = |last| ["campaigns", name.as_str(), last];
            if campaign.touches_max > 1 && campaign.gap_days.is_none() {
                let message = format!("the campaign `{name}` touches a member up to {} times and names no gap", campaign.touches_max);
                self.error(&key("touches_max"), message, "add gap_days: the days between two touches");
            }
            if let Some(window) = &campaign.window {
                if window.from >= window.to {
                    let message = "the window ends before it begins";
                    self.error(
                        &["campaigns", name, "window", "to"],
                        message,
                        "a window lies within one day; split one that runs past midnight",
                    );
                }
                if window.days.is_empty() {
                    let message = "the window has no day, so that nothing is ever sent";
                    self.error(&["campaigns", name, "window", "days"], message, "name days, or set enabled = false");
                }
            }
            let planned = self.config.pipelines.values().any(|pipeline| pipeline.campaigns.contains(name));
            if campaign.enabled && !self.config.pipelines.is_empty() && !planned {
                self.warn(&["campaigns", name], format!("no pipeline plans the campaign `{name}`"));
            }
        }
    }

    fn channels(&mut self) {
        for (name, channel) in &self.config.channels {
            if channel.retry_secs > channel.retry_secs_max {
                let message = format!("retry_secs is {}, more than retry_secs_max ({})", channel.retry_secs, channel.retry_secs_max);
                self.error(&["channels", name, "retry_secs"], message, "raise retry_secs_max");
            }
        }
    }

    fn pipelines(&mut self) {
        for (name, pipeline) in &self.config.pipelines {
            if pipeline.sources.is_empty() {
                self.error(&["pipelines", name, "sources"], format!("the pipeline `{name}` has no source"), "name at least one");
            }
            for (at, source) in pipeline.sources.iter().enumerate() {
                self.reference(&["pipelines", name, "sources", &at.to_string()], source, "source", self.config.sources.keys());
            }
            for (at, campaign) in pipeline.campaigns.iter().enumerate() {
                self.reference(&["pipelines", name, "campaigns", &at.to_string()], campaign, "campaign", self.config.campaigns.keys());
            }
        }
    }

    fn reference<'b>(&mut self, key: &[&str], name: &str, what: &str, known: impl Iterator<Item = &'b String>) {
        let known: Vec<_> = known.map(String::as_str).collect();
        if !known.contains(&name) {
            let text = matches!(self.config.document.get(key).map(|node| &node.value), Some(Value::Text(_)));
            debug_assert!(text, "references are texts");
            self.error(key, format!("there is no {what} `{name}`"), did_you_mean(name, &format!("{what}s"), known));
        }
    }
}
