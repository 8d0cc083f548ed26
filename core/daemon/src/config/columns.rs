//! Which column of a source becomes which column of a member.

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Schema};
use reunion_model::limits::COLUMNS_MAX;
use reunion_model::record;
use reunion_model::schema::{self, ColumnType, Rule, Survivorship};

use super::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use super::{Config, Unit, Zone};

/// How the rows of a source are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordId {
    /// By this column of the source.
    Column(String),
    /// By a hash of these columns, by our names.
    Key(Vec<String>),
}

/// A column of a source and what becomes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceColumn {
    /// Our name: a canonical one, `phone`, or a further one.
    pub to: String,
    /// The source's name.
    pub from: String,
    /// The type that it is to have.
    pub kind: ColumnType,
    /// What an amount counts in, where it is declared.
    pub unit: Option<Unit>,
    /// How times are written, where it is not RFC 3339.
    pub format: Option<String>,
    /// The timezone of times that name none: the column's, the source's, or the config's.
    pub timezone: Zone,
    /// The source's own words and what they mean.
    pub values: Vec<(String, String)>,
}

/// What becomes of all columns of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceColumns {
    /// How its rows are told apart.
    pub record_id: RecordId,
    /// Its columns, `record_id` left out: those that the config maps, then the others in the source's order.
    pub columns: Vec<SourceColumn>,
}

/// A column of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// How its value is chosen. Sources stand in it by their names in the config.
    pub rule: Rule,
}

/// What has a name already, where something has; tags are not looked at.
pub(super) fn taken(name: &str) -> Option<&'static str> {
    if schema::DERIVED.iter().any(|derived| derived.name == name) {
        Some("a derived column")
    } else if reunion_people::golden::is_own(name) || (record::is_own(name) && name != record::PHONE && name != record::RECORD_ID) {
        Some("a column of Reunion's own")
    } else {
        None
    }
}

/// The type that our name gives a column; none for a further column.
pub(super) fn fixed_type(name: &str) -> Option<ColumnType> {
    match name {
        record::PHONE | record::RECORD_ID => Some(ColumnType::Text),
        _ => schema::canonical(name).map(|column| column.kind),
    }
}

/// The type that a column has by itself.
fn natural_type(kind: &DataType) -> ColumnType {
    match kind {
        DataType::Boolean => ColumnType::Boolean,
        DataType::Date32 | DataType::Date64 => ColumnType::Date,
        DataType::Timestamp(..) => ColumnType::Timestamp,
        kind if kind.is_integer() => ColumnType::Integer,
        kind if kind.is_numeric() => ColumnType::Decimal,
        _ => ColumnType::Text,
    }
}

impl Config {
    /// What becomes of the columns of a source whose rows have this schema.
    ///
    /// A column of the source that the config maps goes where the config says and nowhere else. Of the
    /// others, one with a name of ours becomes that column unless the config maps another to it, and a
    /// further one keeps its name and, unless the source has types, is text.
    ///
    /// # Errors
    /// Where a mapped column is not there, or a further one has a name that is taken.
    pub fn source_columns(&self, name: &str, found: &Schema) -> Result<SourceColumns, Diagnostics> {
        let source = &self.sources[name];
        let mut findings = Diagnostics::new(self.document.files.clone());
        if found.fields().len() > COLUMNS_MAX {
            let message = format!("the source `{name}` has {} columns, and {COLUMNS_MAX} are allowed", found.fields().len());
            findings.push(Diagnostic::error(self.document.locate(&["sources", name]), message));
        }
        let zone = source.timezone.as_ref().unwrap_or(&self.timezone);
        let mut record_id = None;
        let mut columns = Vec::new();
        for (to, column) in &source.columns {
            let Ok(field) = found.field_with_name(&column.from) else {
                let place = self.document.locate(&["sources", name, "columns", to, "from"]);
                let names = found.fields().iter().map(|field| field.name().as_str());
                let message = format!("the source `{name}` has no column `{}`", column.from);
                findings.push(Diagnostic::error(place, message).help(did_you_mean(&column.from, "its columns", names)));
                continue;
            };
            if to == record::RECORD_ID {
                record_id = Some(column.from.clone());
                continue;
            }
            columns.push(SourceColumn {
                to: to.clone(),
                from: column.from.clone(),
                kind: fixed_type(to).or(column.kind).unwrap_or_else(|| natural_type(field.data_type())),
                unit: column.unit,
                format: column.format.clone(),
                timezone: column.timezone.as_ref().unwrap_or(zone).clone(),
                values: column.values.iter().map(|(word, meaning)| (word.clone(), meaning.clone())).collect(),
            });
        }
        for field in found.fields() {
            let own = field.name();
            if source.columns.contains_key(own) || source.columns.values().any(|column| column.from == *own) {
                continue;
            }
            if own == record::RECORD_ID {
                record_id = Some(own.clone());
                continue;
            }
            if let Some(what) = taken(own).or_else(|| self.is_tag_column(own).then_some("a tag")) {
                let place = self.document.locate(&["sources", name]);
                let message = format!("the source `{name}` has a column `{own}`, and that name is {what}");
                findings.push(Diagnostic::error(place, message).help(format!("give it another: columns = {{ other_name = \"{own}\" }}")));
                continue;
            }
            let kind = fixed_type(own).unwrap_or_else(|| natural_type(field.data_type()));
            let (unit, format, values) = (None, None, Vec::new());
            columns.push(SourceColumn { to: own.clone(), from: own.clone(), kind, unit, format, timezone: zone.clone(), values });
        }
        let record_id = match record_id {
            Some(column) if source.key.is_empty() => RecordId::Column(column),
            _ if source.key.is_empty() => RecordId::Key(vec![record::PHONE.to_owned()]),
            _ => RecordId::Key(source.key.clone()),
        };
        if let RecordId::Key(key) = &record_id {
            self.check_key(name, key, &columns, &mut findings);
        }
        if findings.is_empty() { Ok(SourceColumns { record_id, columns }) } else { Err(findings) }
    }

    fn check_key(&self, name: &str, key: &[String], columns: &[SourceColumn], findings: &mut Diagnostics) {
        for wanted in key.iter().filter(|wanted| !columns.iter().any(|column| column.to == **wanted)) {
            let place = self.document.locate(&["sources", name, "key"]);
            let message = if self.sources[name].key.is_empty() {
                format!("nothing tells the rows of `{name}` apart: it has neither `record_id` nor `phone`")
            } else {
                format!("`{wanted}` in the key of `{name}` is none of its columns")
            };
            let help = "map the column with the rows' own id: columns = { record_id = \"…\" }, or name columns in `key`";
            findings.push(Diagnostic::error(place, message).help(help));
        }
    }

    pub(super) fn is_tag_column(&self, name: &str) -> bool {
        self.tags.contains_key(name) || name.strip_suffix("_since").is_some_and(|tag| self.tags.contains_key(tag))
    }

    /// The columns of members that these sources give: the canonical ones in the order of their table,
    /// then the further ones by name.
    ///
    /// # Errors
    /// Where two sources give a further column different types, or its rule does not fit its type.
    pub fn member_columns(&self, sources: &[(&str, &SourceColumns)]) -> Result<Vec<MemberColumn>, Diagnostics> {
        let types = |plan: &SourceColumns| plan.columns.iter().map(|column| (column.to.clone(), column.kind)).collect();
        let types: Vec<(&str, BTreeMap<String, ColumnType>)> = sources.iter().map(|(source, plan)| (*source, types(plan))).collect();
        self.member_columns_of(&types.iter().map(|(source, types)| (*source, types)).collect::<Vec<_>>())
    }

    /// The columns of members that sources with columns of these names and types give.
    ///
    /// # Errors
    /// As [`Config::member_columns`].
    pub fn member_columns_of(&self, sources: &[(&str, &BTreeMap<String, ColumnType>)]) -> Result<Vec<MemberColumn>, Diagnostics> {
        let mut findings = Diagnostics::new(self.document.files.clone());
        let mut further = BTreeMap::new();
        for (source, columns) in sources {
            for (name, kind) in columns.iter().filter(|(name, _)| *name != record::PHONE && schema::canonical(name).is_none()) {
                let (first, known) = *further.entry(name.as_str()).or_insert((*source, *kind));
                if known != *kind {
                    let place = self.document.locate(&["sources", source, "columns", name]);
                    let message = format!("`{name}` is {known} in the source `{first}` and {kind} in `{source}`");
                    let help = format!("declare one type in both: columns = {{ {name} = {{ from = \"…\", type = \"{known}\" }} }}");
                    findings.push(Diagnostic::error(place, message).help(help));
                }
            }
        }
        let given = |name: &str| sources.iter().any(|(_, columns)| columns.contains_key(name));
        let canonical = schema::COLUMNS.iter().filter(|column| given(column.name));
        let canonical = canonical.map(|column| (column.name, column.kind, column.survivorship));
        let further = further.into_iter().map(|(name, (_, kind))| (name, kind, Survivorship::MostRecent));
        let columns = canonical.chain(further).map(|(name, kind, default)| MemberColumn {
            name: name.to_owned(),
            kind,
            rule: self.identity.survivorship.get(name).cloned().unwrap_or_else(|| default.into()),
        });
        let columns: Vec<_> = columns.collect();
        for column in &columns {
            let chosen = self.identity.survivorship.get(&column.name).map(|rule| rule.survivorship);
            if let Some(rule) = chosen.filter(|rule| !rule.fits(column.kind)) {
                let place = self.document.locate(&["identity", "survivorship", &column.name, "rule"]);
                findings.push(Diagnostic::error(place, misfit(&column.name, rule, column.kind)).help(fitting(column.kind)));
            }
        }
        if findings.is_empty() { Ok(columns) } else { Err(findings) }
    }
}

pub(super) fn misfit(name: &str, rule: Survivorship, kind: ColumnType) -> String {
    format!("`{}` does not fit `{name}`, which is {}", rule.name(), with_article(kind))
}

/// The rules that a column of this type may be given, as a help.
pub(super) fn fitting(kind: ColumnType) -> String {
    let fitting: Vec<_> = Survivorship::CHOICES.into_iter().filter(|rule| rule.fits(kind)).map(Survivorship::name).collect();
    format!("rules that fit: {}", fitting.join(", "))
}

/// A type in a sentence.
pub(super) fn with_article(kind: ColumnType) -> String {
    match kind {
        ColumnType::Text => kind.to_string(),
        ColumnType::Integer => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}
