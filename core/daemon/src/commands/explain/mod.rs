//! `explain`: everything that is known of a member or a phone, and why.

mod derivation;
pub(super) mod subject;
mod text;
mod unused;

use std::collections::{BTreeMap, HashSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use reunion_ledger::{ComponentKind, Task, TaskFilter};
use reunion_model::phone::mask;
use reunion_model::schema::MEMBER_ID;
use reunion_model::{ContactId, Gate, MemberId, Reason, TaskState};
use reunion_people::PhoneRules;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::failure::{Doing, Failure};
use crate::run::phones;
use crate::state::{State, moment};

use super::members;
use super::suppress::phone_rules;
use super::tasks;
use super::view::{Forwarded, View, is_in, shown_id};
use subject::Subject;

/// Runs the command.
pub fn explain(app: &App, who: &str) -> Result<Exit, Failure> {
    let state = app.state()?;
    let view = View::open(app, &state)?;
    let rules = phone_rules(app)?;
    let subject = Subject::of(&rules, who);
    let explainer = Explainer { app, state: &state, view: &view, rules };
    let result = explainer.document(&subject)?;
    app.print(&result, text::text)?;
    Ok(Exit::Done)
}

/// What explaining needs.
struct Explainer<'a> {
    app: &'a App,
    state: &'a State,
    view: &'a View<'a>,
    rules: PhoneRules,
}

impl Explainer<'_> {
    fn document(&self, subject: &Subject) -> Result<Value, Failure> {
        let forwarded = match subject {
            Subject::Member(member) => self.view.forwarded(*member)?,
            _ => Forwarded::default(),
        };
        let found = match subject {
            Subject::Member(member) => self.view.records_of(&HashSet::from([forwarded.into.unwrap_or(*member).0]))?,
            _ => self.view.records_where(|rows| subject.is_in(rows))?,
        };
        let members = member_ids(&found);
        let contacts = self.contacts(subject, &members)?;
        let mut tasks = self.tasks(subject, &members, &contacts)?;
        self.is_known(subject, &found, &tasks, &forwarded)?;
        let of_members = self.view.records_of(&members.iter().map(|member| member.0).collect())?;
        let mut documents = Vec::new();
        for member in &members {
            let (own, others) = tasks.into_iter().partition(|task| task.member == *member);
            tasks = others;
            documents.push(self.member(*member, &of_members, own)?);
        }
        Ok(json!({
            "phone": subject.phone().map(|phone| phone.to_string()),
            "refused": self.refused(subject),
            "generation": self.view.head.generation,
            "clock": moment(self.view.head.clock_us, &self.app.config.timezone),
            "records": self.record_rows(&found),
            "forwarded_to": forwarded.into.map(|into| into.to_string()),
            "gone": forwarded.is_gone,
            "members": documents,
            "contact": self.contact(&contacts, &tasks)?,
        }))
    }

    /// A text that is neither in any row nor anything that could be is a mistake of the command line's.
    fn is_known(&self, subject: &Subject, found: &RecordBatch, tasks: &[Task], forwarded: &Forwarded) -> Result<(), Failure> {
        match subject {
            _ if found.num_rows() > 0 || !tasks.is_empty() => Ok(()),
            Subject::Member(member) if forwarded.into.is_none() && !forwarded.is_gone => {
                Err(Failure::usage(format!("there is no member {member}"))
                    .help("ask by phone, or find the id: `reunion query \"select member_id, store from members limit 10\"`"))
            }
            Subject::Refused { reason: reason @ (Reason::PhoneInvalid | Reason::PhoneMissing), .. } => Err(Failure::usage(format!(
                "this is neither a member's id of 32 hex digits nor a phone number, and no row has it: {}",
                reason.explain()
            ))
            .help("rows that were set aside: `reunion query \"select source, record_id, reason from quarantine limit 10\"`")),
            _ => Ok(()),
        }
    }

    fn refused(&self, subject: &Subject) -> Option<Value> {
        let Subject::Refused { cell, reason } = subject else { return None };
        Some(json!({ "cell": mask(cell), "code": reason.code(), "because": reason.explain() }))
    }

    /// A row's id as it may be shown: some sources take the phone for one.
    fn record_id(&self, id: &str) -> String {
        shown_id(&self.rules, id)
    }

    fn record_rows(&self, found: &RecordBatch) -> Vec<Value> {
        let text = |name: &str, row: usize| {
            let column = found.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_owned())
        };
        let ids = member_column(found);
        let row = |row: usize| {
            let code = text("reason", row);
            let reason = code.as_deref().and_then(Reason::from_code);
            json!({
                "source": text("source", row),
                "record_id": text("record_id", row).map(|id| self.record_id(&id)),
                "member_id": ids.is_valid(row).then(|| MemberId::from_slice(ids.value(row)).map(|id| id.to_string())).flatten(),
                "quarantined": code,
                "because": reason.map(Reason::explain),
            })
        };
        (0..found.num_rows()).map(row).collect()
    }

    fn member(&self, member: MemberId, records: &RecordBatch, tasks: Vec<Task>) -> Result<Value, Failure> {
        let own = is_in(records, MEMBER_ID, &HashSet::from([member.0]));
        let own = filter_record_batch(records, &own).doing(|| "records cannot be chosen".to_owned())?;
        let rows = self.rows(&own)?;
        let unused = self.unused(member, &rows)?;
        let rules_changed = self.has_other_rules()?;
        let keys = self.view.keys_of(&HashSet::from([member.0]))?.into_keys().collect();
        let stored = self.view.tags()?;
        let tags = self.app.config.tags.iter().filter_map(|(tag, of)| {
            let since = stored.since_us(tag, member)?;
            Some(json!({ "tag": tag, "since": moment(since, &self.app.config.timezone), "rule": of.when }))
        });
        Ok(json!({
            "member_id": member,
            "records": own.num_rows(),
            "rows": self.joined(&rows, &unused)?,
            "rules_changed": rules_changed,
            "not_used": self.not_used(member, &rows, &unused, !rules_changed)?,
            "who_is_who": members::of_member(self.app, self.view, &self.rules, &keys)?,
            "columns": self.columns(&rows)?,
            "tags": tags.collect::<Vec<_>>(),
            "tasks": tasks.iter().map(|task| self.task(task)).collect::<Vec<_>>(),
            "decisions": self.decisions(member, &tasks)?,
        }))
    }

    /// For each campaign that has no task for the member, why not.
    fn decisions(&self, member: MemberId, tasks: &[Task]) -> Result<Vec<Value>, Failure> {
        let mut decided = Vec::new();
        if let Some(batch) = self.view.rows_where("decisions", |rows| is_in(rows, MEMBER_ID, &HashSet::from([member.0])))? {
            let [campaigns, codes] = ["campaign", "decision"].map(|name| texts(&batch, name).unwrap_or_default());
            decided.extend(campaigns.into_iter().flatten().zip(codes.into_iter().flatten()));
        }
        let known = self.state.ask(self.state.ledger.components())?;
        let was_run = |name: &str| known.iter().any(|known| known.kind == ComponentKind::Campaign && known.name == name);
        let mut documents = Vec::new();
        for (campaign, code) in &decided {
            let because = Gate::from_code(code).map_or("the phone is in the campaign's control group", Gate::explain);
            documents.push(json!({ "campaign": campaign, "decision": code, "because": because }));
        }
        let silent = |name: &&String| decided.iter().all(|(known, _)| known != *name) && tasks.iter().all(|task| task.campaign != **name);
        for (name, of) in self.app.config.campaigns.iter().filter(|(name, _)| silent(name)) {
            let (code, because) = match (of.enabled, was_run(name)) {
                (false, _) => (Gate::CampaignOff.code(), "the campaign is off in the config".to_owned()),
                (true, false) => ("not_run", "no run has planned this campaign yet".to_owned()),
                (true, true) => (Gate::NotInAudience.code(), format!("the member was not in the audience: {}", of.audience)),
            };
            documents.push(json!({ "campaign": name, "decision": code, "because": because }));
        }
        Ok(documents)
    }

    /// A task, and for one that was not sent what stopped it.
    fn task(&self, task: &Task) -> Value {
        let mut shown = tasks::row(self.app, task);
        let gate = task.code.as_deref().and_then(Gate::from_code);
        let stopped = matches!(task.state, TaskState::Refused | TaskState::Cancelled);
        let waits = task.state.is_open() && task.not_before_us > self.view.head.clock_us;
        shown["because"] = gate.filter(|_| stopped).map(Gate::explain).into();
        shown["not_before"] = waits.then(|| moment(task.not_before_us, &self.app.config.timezone)).into();
        shown
    }

    /// The contact points that the question is about.
    fn contacts(&self, subject: &Subject, members: &[MemberId]) -> Result<Vec<ContactId>, Failure> {
        let lookup = self.state.keys.lookup();
        let mut contacts: Vec<_> = subject.phone().map(|phone| lookup.contact(phone)).into_iter().collect();
        let members: HashSet<[u8; 16]> = members.iter().map(|member| member.0).collect();
        if let Some(batch) = self.view.rows_where("members", |rows| is_in(rows, MEMBER_ID, &members))? {
            contacts.extend(phones(&batch).flat_map(|(_, phones)| phones).map(|phone| lookup.contact(phone)));
        }
        contacts.sort_unstable();
        contacts.dedup();
        Ok(contacts)
    }

    /// The tasks of the members and of the contact points, newest move first.
    fn tasks(&self, subject: &Subject, members: &[MemberId], contacts: &[ContactId]) -> Result<Vec<Task>, Failure> {
        let asked = match subject {
            Subject::Member(member) => Some(*member),
            _ => None,
        };
        let by_member = members.iter().copied().chain(asked).map(|member| TaskFilter { member: Some(member), ..TaskFilter::default() });
        let by_contact = contacts.iter().map(|contact| TaskFilter { contact: Some(*contact), ..TaskFilter::default() });
        let mut found: BTreeMap<_, Task> = BTreeMap::new();
        for filter in by_member.chain(by_contact) {
            found.extend(self.state.ask(self.state.ledger.tasks(&filter))?.into_iter().map(|task| (task.task_id, task)));
        }
        let mut tasks: Vec<Task> = found.into_values().collect();
        tasks.sort_by_key(|task| std::cmp::Reverse(task.changed_us));
        Ok(tasks)
    }

    /// What people and channels told us of the contact points, and tasks that are of no member any more.
    fn contact(&self, contacts: &[ContactId], tasks: &[Task]) -> Result<Value, Failure> {
        let zone = &self.app.config.timezone;
        let facts = self.state.ask(self.state.ledger.facts())?;
        let suppressions = facts.suppressions.iter().filter(|entry| contacts.contains(&entry.contact)).map(|entry| {
            json!({
                "reason": entry.reason, "source": entry.source, "set_by": entry.set_by,
                "since": moment(entry.since_us, zone), "until": entry.until_us.map(|until| moment(until, zone)),
            })
        });
        let links = facts.links.iter().filter(|link| contacts.contains(&link.contact));
        let links = links.map(|link| json!({ "channel": link.channel, "since": moment(link.since_us, zone) }));
        Ok(json!({
            "suppressions": suppressions.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
            "tasks": tasks.iter().map(|task| self.task(task)).collect::<Vec<_>>(),
        }))
    }
}

fn member_column(records: &RecordBatch) -> &arrow::array::FixedSizeBinaryArray {
    records.column_by_name(MEMBER_ID).expect("records have members").as_fixed_size_binary()
}

fn member_ids(records: &RecordBatch) -> Vec<MemberId> {
    let mut members: Vec<MemberId> = member_column(records).iter().flatten().filter_map(MemberId::from_slice).collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// The values of a column as texts; `None` where there is no such column.
fn texts(rows: &RecordBatch, column: &str) -> Option<Vec<Option<String>>> {
    let column = rows.column_by_name(column)?;
    let shown = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default()).ok()?;
    Some((0..column.len()).map(|row| column.is_valid(row).then(|| shown.value(row).to_string())).collect())
}
