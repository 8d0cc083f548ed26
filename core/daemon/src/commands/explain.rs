//! `explain`: everything that is known of a member, and why.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt64Type;
use reunion_ledger::TaskFilter;
use reunion_model::schema::MEMBER_ID;
use reunion_model::{Gate, MemberId, Phone, Reason};
use reunion_people::{GoldenColumn, GoldenPlan, explain as derive};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::failure::{Doing, Failure};
use crate::run::short;
use crate::state::{State, moment};

use super::suppress::phone;
use super::tasks;
use super::view::View;

/// Whom the operator asks about.
struct Subject {
    member: Option<MemberId>,
    phone: Option<Phone>,
}

/// Runs the command.
pub fn explain(app: &App, who: &str) -> Result<Exit, Failure> {
    let state = app.state()?;
    let view = View::open(app, &state)?;
    let subject = match who.parse::<MemberId>() {
        Ok(member) => Subject { member: Some(member), phone: None },
        Err(_) => match phone(app, who) {
            Ok(phone) => Subject { member: None, phone: Some(phone) },
            // A number that is never used is explained by that.
            Err(failure) => {
                return Err(failure.help("rows with such a number are in quarantine: `reunion query \"select * from quarantine\"`"));
            }
        },
    };
    let records = view.records()?;
    let found = matching(&records, &subject)?;
    let members = member_ids(&found, &subject);
    let forwarded = forwarded(&view, &subject)?;
    let rows = record_rows(&found);
    let mut documents = Vec::new();
    for member in &members {
        documents.push(member_document(app, &state, &view, &records, *member)?);
    }
    let contact = contact(&state, &view, &subject, &members)?;
    let result = json!({
        "phone": subject.phone.map(|phone| phone.to_string()),
        "generation": view.head.generation,
        "clock": moment(view.head.clock_us, &app.config.timezone),
        "records": rows,
        "forwarded_to": forwarded.map(|into| into.map(|id| id.to_string())),
        "members": documents,
        "contact": contact,
    });
    app.print(&result, text)?;
    Ok(Exit::Done)
}

/// The records of the member, or with the phone; those with the phone in a cell that was refused too.
fn matching(records: &RecordBatch, subject: &Subject) -> Result<RecordBatch, Failure> {
    let ids = records.column_by_name(MEMBER_ID).expect("records have members").as_fixed_size_binary();
    let phones = records.column_by_name("phone").expect("records have phones").as_primitive::<UInt64Type>();
    let wanted: arrow::array::BooleanArray = (0..records.num_rows())
        .map(|row| {
            let by_member = subject.member.is_some_and(|member| ids.is_valid(row) && ids.value(row) == member.0);
            let by_phone = subject.phone.is_some_and(|phone| phones.is_valid(row) && phones.value(row) == phone.e164_digits());
            Some(by_member || by_phone)
        })
        .collect();
    filter_record_batch(records, &wanted).doing(|| "records cannot be chosen".to_owned())
}

fn member_ids(found: &RecordBatch, subject: &Subject) -> Vec<MemberId> {
    let ids = found.column_by_name(MEMBER_ID).expect("records have members").as_fixed_size_binary();
    let mut members: Vec<MemberId> =
        ids.iter().flatten().filter_map(MemberId::from_slice).chain(subject.member.filter(|_| found.num_rows() > 0)).collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// Where a member that is no more went: `Some(None)` where its records are gone.
fn forwarded(view: &View<'_>, subject: &Subject) -> Result<Option<Option<MemberId>>, Failure> {
    let Some(member) = subject.member else { return Ok(None) };
    let Some(batch) = view.table("forwards")? else { return Ok(None) };
    let ids = batch.column(0).as_fixed_size_binary();
    let into = batch.column(1).as_fixed_size_binary();
    let row = (0..batch.num_rows()).find(|row| ids.value(*row) == member.0);
    Ok(row.map(|row| into.is_valid(row).then(|| MemberId::from_slice(into.value(row))).flatten()))
}

fn record_rows(found: &RecordBatch) -> Vec<Value> {
    let text = |name: &str, row: usize| {
        let column = found.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned())
    };
    let ids = found.column_by_name(MEMBER_ID).expect("records have members").as_fixed_size_binary();
    let row = |row: usize| {
        let reason = text("reason", row).and_then(|code| Reason::from_code(&code));
        json!({
            "source": text("source", row),
            "record_id": text("record_id", row),
            "member_id": ids.is_valid(row).then(|| MemberId::from_slice(ids.value(row)).map(|id| id.to_string())).flatten(),
            "quarantined": reason.map(Reason::code),
            "because": reason.map(Reason::explain),
        })
    };
    (0..found.num_rows()).map(row).collect()
}

fn member_document(app: &App, state: &State, view: &View<'_>, records: &RecordBatch, member: MemberId) -> Result<Value, Failure> {
    let own = matching(records, &Subject { member: Some(member), phone: None })?;
    let columns = columns(app, view, &own)?;
    let tags = view.tags()?;
    let tags: Vec<Value> = app
        .config
        .tags
        .iter()
        .filter_map(|(tag, of)| {
            let since = tags.since_us(tag, member)?;
            Some(json!({ "tag": tag, "since": moment(since, &app.config.timezone), "rule": of.when }))
        })
        .collect();
    let of_member = state.ask(state.ledger.tasks(&TaskFilter { member: Some(member), ..TaskFilter::default() }))?;
    let tasks: Vec<Value> = of_member.iter().map(|task| tasks::row(app, task)).collect();
    Ok(
        json!({ "member_id": member, "records": own.num_rows(), "columns": columns, "tags": tags, "tasks": tasks, "decisions": decisions(view, member)? }),
    )
}

/// Each golden value, the rule that chose it, and the records that it came from.
fn columns(app: &App, view: &View<'_>, own: &RecordBatch) -> Result<Vec<Value>, Failure> {
    let stored = view.schema()?;
    let sources = stored.sources.iter().map(|(name, columns)| (name.as_str(), columns)).collect::<Vec<_>>();
    let golden = app.config.member_columns_of(&sources)?;
    let personal = |name: &str| reunion_model::schema::canonical(name).is_none_or(|column| column.personal);
    let plan = golden.into_iter().map(|column| GoldenColumn { name: column.name, kind: column.kind, rule: column.survivorship }).collect();
    let doing = || "the values of the member cannot be derived".to_owned();
    let plan = GoldenPlan::new(plan).doing(doing)?;
    let source = own.column_by_name("source").expect("records have sources").as_string::<i32>().clone();
    let mut by_source: Vec<(String, RecordBatch)> = Vec::new();
    for (_, name) in view.sources()? {
        let mask: arrow::array::BooleanArray = source.iter().map(|of| Some(of == Some(name.as_str()))).collect();
        let batch = filter_record_batch(own, &mask).doing(doing)?;
        if batch.num_rows() > 0 {
            by_source.push((name, batch));
        }
    }
    let parts: Vec<(&str, RecordBatch)> = by_source.iter().map(|(name, batch)| (name.as_str(), batch.clone())).collect();
    let explained = derive(&plan, &parts).doing(doing)?;
    let document = |column: reunion_people::Explained| {
        let from: Vec<String> = column.from.iter().map(|(source, id)| format!("{source} {id}")).collect();
        let value = column.value.map(|value| if personal(&column.column) { reunion_model::phone::mask(&value) } else { value });
        json!({ "column": column.column, "value": value, "rule": column.rule.name(), "from": from })
    };
    Ok(explained.into_iter().filter(|column| column.value.is_some()).map(document).collect())
}

/// The campaigns of the last run that gave the member no task, and the gate that stopped each.
fn decisions(view: &View<'_>, member: MemberId) -> Result<Vec<Value>, Failure> {
    let Some(batch) = view.table("decisions")? else { return Ok(Vec::new()) };
    let column = |name: &str| batch.column_by_name(name).expect("decisions have this column");
    let campaigns = column("campaign").as_string::<i32>();
    let ids = column(MEMBER_ID).as_fixed_size_binary();
    let decided = column("decision").as_string::<i32>();
    let of_member = (0..batch.num_rows()).filter(|row| ids.value(*row) == member.0);
    let document = |row: usize| {
        let code = decided.value(row);
        let because = Gate::from_code(code).map_or("the member is in the campaign's control group", Gate::explain);
        json!({ "campaign": campaigns.value(row), "decision": code, "because": because })
    };
    Ok(of_member.map(document).collect())
}

/// What people and channels told us of the contact point.
fn contact(state: &State, view: &View<'_>, subject: &Subject, members: &[MemberId]) -> Result<Value, Failure> {
    let lookup = state.keys.lookup();
    let mut contacts: Vec<_> = subject.phone.map(|phone| lookup.contact(phone)).into_iter().collect();
    if let Some(batch) = view.table("members")? {
        let ids = batch.column_by_name(MEMBER_ID).expect("members have ids").as_fixed_size_binary();
        let phones = batch.column_by_name("phone").expect("members have phones").as_primitive::<UInt64Type>();
        let of_members =
            (0..batch.num_rows()).filter(|row| phones.is_valid(*row) && members.iter().any(|member| ids.value(*row) == member.0));
        contacts.extend(of_members.map(|row| lookup.contact(Phone::from_e164_digits(phones.value(row)))));
    }
    contacts.sort_unstable();
    contacts.dedup();
    let facts = state.ask(state.ledger.facts())?;
    let suppressions: Vec<Value> = facts
        .suppressions
        .iter()
        .filter(|entry| contacts.contains(&entry.contact))
        .map(|entry| json!({ "reason": entry.reason, "source": entry.source, "set_by": entry.set_by }))
        .collect();
    let links: Vec<Value> =
        facts.links.iter().filter(|link| contacts.contains(&link.contact)).map(|link| json!({ "channel": link.channel })).collect();
    Ok(json!({ "suppressions": suppressions, "links": links }))
}

fn text(result: &Value) -> String {
    let mut text = String::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(phone) = result["phone"].as_str() {
        let _ = writeln!(text, "phone {phone}, as of generation {} ({})", result["generation"], word(&result["clock"]));
    }
    let records = list(&result["records"]);
    if records.is_empty() {
        let _ = writeln!(text, "no row of any source has it");
    }
    for record in &records {
        let fate = match record["quarantined"].as_str() {
            Some(code) => format!("in quarantine: {code}: {}", word(&record["because"])),
            None => format!("member {}", short(&word(&record["member_id"]))),
        };
        let _ = writeln!(text, "  row {} of {}: {fate}", word(&record["record_id"]), word(&record["source"]));
    }
    if let Some(into) = result["forwarded_to"].as_str() {
        let _ = writeln!(text, "the member was merged into {into}");
    }
    for member in list(&result["members"]) {
        let _ = writeln!(text, "\nmember {} made of {} rows", word(&member["member_id"]), member["records"]);
        for column in list(&member["columns"]) {
            let from: Vec<String> = list(&column["from"]).iter().map(word).collect();
            let _ = writeln!(
                text,
                "  {} = {}  ({} of {})",
                word(&column["column"]),
                word(&column["value"]),
                word(&column["rule"]),
                from.join(", ")
            );
        }
        for tag in list(&member["tags"]) {
            let _ = writeln!(text, "  tag {} since {}: {}", word(&tag["tag"]), word(&tag["since"]), word(&tag["rule"]));
        }
        for task in list(&member["tasks"]) {
            let why = [word(&task["code"]), word(&task["message"]), word(&task["outcome"])]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>();
            let _ = writeln!(
                text,
                "  task {} of {}: {} since {} {}",
                short(&word(&task["task_id"])),
                word(&task["campaign"]),
                word(&task["state"]),
                word(&task["changed"]),
                why.join(", ")
            );
        }
        for decision in list(&member["decisions"]) {
            let _ = writeln!(
                text,
                "  no task of {}: {}: {}",
                word(&decision["campaign"]),
                word(&decision["decision"]),
                word(&decision["because"])
            );
        }
    }
    for entry in list(&result["contact"]["suppressions"]) {
        let _ = writeln!(text, "suppressed by {} ({}): {}", word(&entry["set_by"]), word(&entry["source"]), word(&entry["reason"]));
    }
    for link in list(&result["contact"]["links"]) {
        let _ = writeln!(text, "linked in {}", word(&link["channel"]));
    }
    text
}
