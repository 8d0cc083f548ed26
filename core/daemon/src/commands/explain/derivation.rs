//! Where a member comes from: its rows and what they have in common, its values and what chose them.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use reunion_model::Phone;
use reunion_model::phone::mask;
use reunion_model::record::PHONE;
use reunion_model::schema::{Survivorship, canonical};
use reunion_people::{Explained, GoldenColumn, GoldenPlan, Origin, SharedKey, Unused, explain, joined};
use serde_json::{Value, json};

use crate::config::MemberColumn;
use crate::failure::{Doing, Failure};

use super::Explainer;

/// The rows of one member by the source that they are of.
pub struct Rows {
    /// The names of all sources that have records: as the state knows them, and as the config does.
    names: Vec<(String, String)>,
    /// As the state knows the source, and its rows.
    parts: Vec<(String, RecordBatch)>,
}

impl Rows {
    pub(super) fn parts(&self) -> Vec<(&str, RecordBatch)> {
        self.parts.iter().map(|(origin, rows)| (origin.as_str(), rows.clone())).collect()
    }

    /// The name in the config of a source that the state knows by this one.
    fn name<'a>(&'a self, origin: &'a str) -> &'a str {
        self.names.iter().find(|(known, _)| known == origin).map_or(origin, |(_, name)| name.as_str())
    }

    /// The name by which the state knows a source of the config.
    fn origin(&self, name: &str) -> String {
        self.names.iter().find(|(_, known)| known == name).map_or_else(|| name.to_owned(), |(origin, _)| origin.clone())
    }
}

impl Explainer<'_> {
    /// The rows of a member, of which each has the name of its source in the column `source`.
    pub(super) fn rows(&self, own: &RecordBatch) -> Result<Rows, Failure> {
        let names = self.view.sources()?;
        let source = own.column_by_name("source").expect("records have sources").as_string::<i32>();
        let mut parts = Vec::new();
        for (origin, name) in &names {
            let mask: BooleanArray = source.iter().map(|of| Some(of == Some(name.as_str()))).collect();
            let rows = filter_record_batch(own, &mask).doing(|| "records cannot be chosen".to_owned())?;
            if rows.num_rows() > 0 {
                parts.push((origin.clone(), rows));
            }
        }
        Ok(Rows { names, parts })
    }

    /// The member's rows, and for each the keys that it has in common with another of them, but for values that join nobody.
    pub(super) fn joined(&self, rows: &Rows, unused: &[Unused]) -> Result<Vec<Value>, Failure> {
        let doing = || "the rows of the member cannot be compared".to_owned();
        let joined = joined(&self.app.config.identity.keys, &rows.parts()).doing(doing)?;
        let document = |row: &reunion_people::Joined| {
            let mut document = self.origin(rows, &row.record);
            let joins =
                |by: &&SharedKey| !unused.iter().any(|of| of.why.is_nobodys() && of.columns == by.columns && of.values == by.values);
            document["joined_by"] = row.by.iter().filter(joins).map(shared).collect();
            document
        };
        Ok(joined.iter().map(document).collect())
    }

    /// Each golden value, the rule that chose it, and the records that it came from, by the rules of the generation.
    pub(super) fn columns(&self, rows: &Rows) -> Result<Vec<Value>, Failure> {
        let doing = || "the values of the member cannot be derived".to_owned();
        let plan = GoldenPlan::new(self.golden_columns(rows)?).doing(doing)?;
        let explained = explain(&plan, &rows.parts()).doing(doing)?;
        Ok(explained.iter().filter_map(|column| self.column(rows, column)).collect())
    }

    fn golden_columns(&self, rows: &Rows) -> Result<Vec<GoldenColumn>, Failure> {
        let stored = self.view.schema()?;
        if !stored.columns.is_empty() {
            return Ok(stored.columns);
        }
        // A generation of a version that did not keep them.
        let sources: Vec<_> = stored.sources.iter().map(|(origin, columns)| (rows.name(origin), columns)).collect();
        let golden = |MemberColumn { name, kind, mut rule }| {
            rule.sources = rule.sources.iter().map(|source| rows.origin(source)).collect();
            GoldenColumn { name, kind, rule }
        };
        Ok(self.app.config.member_columns_of(&sources)?.into_iter().map(golden).collect())
    }

    /// Nothing for a column in which the member has no value.
    fn column(&self, rows: &Rows, column: &Explained) -> Option<Value> {
        let rule = &column.rule;
        let is_of_all = matches!(rule.survivorship, Survivorship::Sum | Survivorship::Union);
        let is_too_large = column.value.is_none() && is_of_all && !column.from.is_empty();
        if column.value.is_none() && !is_too_large {
            return None;
        }
        let personal = canonical(&column.column).is_none_or(|column| column.personal);
        let value = column.value.as_ref().map(|value| if personal { mask(value) } else { value.clone() });
        let from: Vec<Value> = column.from.iter().map(|origin| self.origin(rows, origin)).collect();
        let mut document = json!({ "column": column.column, "value": value, "rule": rule.survivorship.name(), "from": from });
        if rule.survivorship == Survivorship::SourcePriority {
            document["sources"] = rule.sources.iter().map(|source| rows.name(source)).collect();
        }
        if rule.survivorship == Survivorship::Union {
            document["separator"] = rule.separator().into();
        }
        if is_too_large {
            document["too_large"] = true.into();
        }
        Some(document)
    }

    pub(super) fn origin(&self, rows: &Rows, record: &Origin) -> Value {
        json!({ "source": rows.name(&record.source), "record_id": self.record_id(&record.record_id), "updated_at": record.updated_at })
    }
}

fn shared(by: &SharedKey) -> Value {
    json!({ "columns": by.columns, "values": masked(&by.columns, &by.values), "rows": by.records })
}

/// The values of a key, as they may be shown.
pub fn masked(columns: &[String], values: &[String]) -> Vec<String> {
    let masked = |(column, value): (&String, &String)| match value.parse() {
        Ok(phone) if column == PHONE => Phone::from_e164_digits(phone).to_string(),
        _ => mask(value),
    };
    columns.iter().zip(values).map(masked).collect()
}
