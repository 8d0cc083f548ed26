//! `suppress add|ls|rm`.

use std::collections::BTreeSet;

use reunion_ledger::{NewSuppression, TaskFilter};
use reunion_model::{Gate, Phone, TaskId};
use reunion_people::PhoneRules;
use serde_json::json;

use crate::app::App;
use crate::cli::{Exit, SuppressCommand};
use crate::failure::{Doing, Failure};
use crate::run::members_with;
use crate::state::{State, moment, now_us};

use super::{operator, table};

/// Runs the command.
pub fn suppress(app: &App, command: SuppressCommand) -> Result<Exit, Failure> {
    let state = app.state()?;
    match command {
        SuppressCommand::Add { phone, reason } => add(app, &state, &phone, reason),
        SuppressCommand::Ls { limit } => ls(app, &state, limit),
        SuppressCommand::Rm { phone } => rm(app, &state, &phone),
    }
}

/// The phone that a text of the command line means, by the rules for the cells of sources.
///
/// # Errors
/// Says why the text is none. The text is not repeated.
pub fn phone(app: &App, text: &str) -> Result<Phone, Failure> {
    let rules = phone_rules(app)?;
    rules.parse(text).map_err(|reason| Failure::usage(format!("this is no phone number that is used: {}", reason.explain())))
}

/// The rules for phone numbers that the config gives.
///
/// # Errors
/// Where an entry of `[phone]` makes no sense.
pub fn phone_rules(app: &App) -> Result<PhoneRules, Failure> {
    let of = &app.config.phone;
    PhoneRules::new(Some(&of.placeholders), &of.allow_prefixes, &of.deny_prefixes).doing(|| "[phone] cannot be used".to_owned())
}

fn add(app: &App, state: &State, text: &str, reason: Option<String>) -> Result<Exit, Failure> {
    let phone = phone(app, text)?;
    let now = now_us();
    let new = NewSuppression {
        phone,
        reason: reason.unwrap_or_else(|| "by hand".to_owned()),
        source: "operator".to_owned(),
        since_us: now,
        until_us: None,
        set_by: operator(),
    };
    let added = state.ask(state.ledger.suppress(&new))?;
    let open: Vec<_> = open_tasks(state, phone, &new)?.into_iter().map(|task_id| (task_id, Gate::Suppressed)).collect();
    let taken_back = state.ask(state.ledger.refuse(&open, now))?;
    app.print(&json!({ "phone": phone.to_string(), "added": added, "tasks_taken_back": taken_back }), |_| {
        let what = if added { "is suppressed now" } else { "was suppressed already" };
        format!("{phone} {what}; {taken_back} open tasks were taken back")
    })?;
    Ok(Exit::Done)
}

/// The open tasks that a suppression ends: those of the number, and of the members who have it beside their phone,
/// where it is the person who is to be left alone.
fn open_tasks(state: &State, phone: Phone, new: &NewSuppression) -> Result<BTreeSet<TaskId>, Failure> {
    let contact = state.keys.lookup().contact(phone);
    let mut filters = vec![TaskFilter { contact: Some(contact), ..TaskFilter::default() }];
    let members = match new.is_of_the_number_alone() {
        true => Ok(Vec::new()),
        false => state.head().and_then(|head| head.map_or(Ok(Vec::new()), |(_, head)| members_with(&head, phone))),
    };
    match members {
        Ok(members) => filters.extend(members.into_iter().map(|member| TaskFilter { member: Some(member), ..TaskFilter::default() })),
        // The suppression holds all the same, and is looked at again before a task is sent.
        Err(failure) => tracing::warn!("open tasks at other numbers of the member were not looked for: {}", failure.render(false)),
    }
    let mut open = BTreeSet::new();
    for filter in filters {
        let tasks = state.ask(state.ledger.tasks(&filter))?;
        open.extend(tasks.iter().filter(|task| task.state.is_open()).map(|task| task.task_id));
    }
    Ok(open)
}

fn ls(app: &App, state: &State, limit: u32) -> Result<Exit, Failure> {
    let mut list = state.ask(state.ledger.suppressions(None))?;
    list.reverse();
    list.truncate(limit as usize);
    let rows: Vec<_> = list
        .iter()
        .map(|entry| {
            let since = moment(entry.since_us, &app.config.timezone);
            json!({ "phone": entry.phone_masked, "reason": entry.reason, "source": entry.source, "since": since, "set_by": entry.set_by })
        })
        .collect();
    app.print(&rows, |rows| {
        let mut table = table(&["phone", "reason", "source", "since", "by"]);
        for row in rows {
            table.add_row(["phone", "reason", "source", "since", "set_by"].map(|key| row[key].as_str().unwrap_or_default().to_owned()));
        }
        table.to_string()
    })?;
    Ok(Exit::Done)
}

fn rm(app: &App, state: &State, text: &str) -> Result<Exit, Failure> {
    let phone = phone(app, text)?;
    let lifted = state.ask(state.ledger.lift_suppressions(phone, &operator(), "", now_us()))?;
    app.print(&json!({ "phone": phone.to_string(), "lifted": lifted }), |_| match lifted {
        0 => format!("{phone} was not suppressed"),
        _ => format!("{phone} may be contacted again"),
    })?;
    Ok(Exit::Done)
}
