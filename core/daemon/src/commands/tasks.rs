//! `tasks ls|show|requeue|drop`.

use reunion_ledger::{Payload, Task, TaskFilter};
use reunion_model::phone::mask;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{self, Exit, TaskSelection, TasksCommand};
use crate::failure::Failure;
use crate::run::short;
use crate::state::{State, moment, now_us};

use super::{operator, table};

/// Runs the command.
pub fn tasks(app: &App, command: TasksCommand) -> Result<Exit, Failure> {
    let state = app.state()?;
    match command {
        TasksCommand::Ls { filter, limit } => ls(app, &state, &filter, limit),
        TasksCommand::Show { id } => show(app, &state, id),
        TasksCommand::Requeue(selection) => requeue(app, &state, &selection),
        TasksCommand::Drop(selection) => drop(app, &state, &selection),
    }
}

fn filter(of: &cli::TaskFilter) -> TaskFilter {
    TaskFilter {
        campaign: of.campaign.clone(),
        state: of.state,
        channel: of.channel.clone(),
        since_us: of.since.map(|since| since.as_microsecond()),
        ..TaskFilter::default()
    }
}

/// The filters that a selection stands for: one for each id, or the one that it describes.
fn filters(selection: &TaskSelection) -> Vec<TaskFilter> {
    if selection.ids.is_empty() {
        return vec![filter(&selection.filter())];
    }
    selection.ids.iter().map(|id| TaskFilter { task_id: Some(*id), ..TaskFilter::default() }).collect()
}

/// A task as output shows it.
pub fn row(app: &App, task: &Task) -> Value {
    json!({
        "task_id": task.task_id,
        "campaign": task.campaign,
        "member_id": task.member,
        "touch": task.touch,
        "channel": task.channel,
        "store": task.store,
        "state": task.state,
        "attempts": task.attempts,
        "planned": moment(task.planned_us, &app.config.timezone),
        "changed": moment(task.changed_us, &app.config.timezone),
        "code": task.code,
        "message": task.message,
        "outcome": task.outcome,
        "run_id": task.run_id,
        "generation": task.generation,
    })
}

fn ls(app: &App, state: &State, wanted: &cli::TaskFilter, limit: u32) -> Result<Exit, Failure> {
    let found = state.ask(state.ledger.tasks(&TaskFilter { limit: Some(limit), ..filter(wanted) }))?;
    let rows: Vec<Value> = found.iter().map(|task| row(app, task)).collect();
    app.print(&rows, |_| {
        let mut table = table(&["task", "campaign", "channel", "store", "state", "changed", "why"]);
        for task in &found {
            let why = [&task.code, &task.outcome, &task.message].into_iter().flatten().next().cloned().unwrap_or_default();
            let changed = moment(task.changed_us, &app.config.timezone);
            let store = task.store.clone().unwrap_or_default();
            table.add_row([
                task.task_id.to_string(),
                task.campaign.clone(),
                task.channel.clone(),
                store,
                task.state.name().to_owned(),
                changed,
                why,
            ]);
        }
        table.to_string()
    })?;
    Ok(Exit::Done)
}

fn show(app: &App, state: &State, id: reunion_model::TaskId) -> Result<Exit, Failure> {
    let Some(detail) = state.ask(state.ledger.task(id))? else {
        return Err(Failure::usage(format!("there is no task {id}")).help("`reunion tasks ls` lists them"));
    };
    let zone = &app.config.timezone;
    let history: Vec<Value> = detail
        .history
        .iter()
        .map(|change| json!({ "at": moment(change.at_us, zone), "state": change.state, "code": change.code, "message": change.message, "dispatch_id": change.dispatch_id }))
        .collect();
    let mut shown = row(app, &detail.task);
    shown["phone"] = detail.payload.phone.to_string().into();
    shown["text"] = detail.payload.message.as_deref().map(|text| masked(text, &detail.payload)).into();
    shown["history"] = history.into();
    app.print(&shown, |_| {
        let task = &detail.task;
        let mut text = format!("task {}  {} for {} in {}\n", task.task_id, task.campaign, detail.payload.phone, task.channel);
        text += &format!("member {}  touch {}  planned by run {}\n", task.member, task.touch, short(&task.run_id.to_string()));
        for change in &detail.history {
            let why = [&change.code, &change.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
            text += &format!("  {}  {}  {why}\n", moment(change.at_us, zone), change.state.name());
        }
        text
    })?;
    Ok(Exit::Done)
}

/// A task's text with the member's name and number hidden.
fn masked(text: &str, payload: &Payload) -> String {
    let name = payload.name.as_deref().filter(|name| !name.is_empty());
    let text = name.map_or_else(|| text.to_owned(), |name| text.replace(name, &mask(name)));
    text.replace(&payload.phone.national(), &payload.phone.to_string())
}

/// An id that no task has is mistyped; nothing is done then.
fn are_known(state: &State, selection: &TaskSelection) -> Result<(), Failure> {
    for id in &selection.ids {
        if state.ask(state.ledger.task(*id))?.is_none() {
            return Err(Failure::usage(format!("there is no task {id}, and nothing was done")).help("`reunion tasks ls` lists them"));
        }
    }
    Ok(())
}

fn requeue(app: &App, state: &State, selection: &TaskSelection) -> Result<Exit, Failure> {
    are_known(state, selection)?;
    let (mut unknown, mut not_sent, mut left_alone) = (0, 0, 0);
    for filter in filters(selection) {
        let done = state.ask(state.ledger.requeue(&filter, &operator(), now_us()))?;
        (unknown, not_sent, left_alone) = (unknown + done.unknown, not_sent + done.not_sent, left_alone + done.left_alone);
    }
    app.print(&json!({ "unknown": unknown, "not_sent": not_sent, "left_alone": left_alone }), |_| {
        format!(
            "{unknown} tasks of unknown outcome and {not_sent} that waited are sent again by the next run or the daemon; {left_alone} were left alone"
        )
    })?;
    Ok(Exit::Done)
}

fn drop(app: &App, state: &State, selection: &TaskSelection) -> Result<Exit, Failure> {
    are_known(state, selection)?;
    let mut dropped = 0;
    for filter in filters(selection) {
        dropped += state.ask(state.ledger.drop_tasks(&filter, &operator(), now_us()))?;
    }
    app.print(&json!({ "cancelled": dropped }), |_| format!("{dropped} tasks were taken back"))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use reunion_model::Phone;

    use super::*;

    #[test]
    fn a_text_shows_neither_name_nor_number() {
        let payload = |name: Option<&str>| Payload {
            name: name.map(str::to_owned),
            phone: Phone::from_china_mobile(13800138000),
            message: None,
            reason: None,
        };
        assert_eq!(masked("王小明您好,13800138000 是您的号码吗?", &payload(Some("王小明"))), "王****您好,138****8000 是您的号码吗?");
        assert_eq!(masked("您好", &payload(Some(""))), "您好");
        assert_eq!(masked("您好", &payload(None)), "您好");
    }

    #[test]
    fn ids_and_filters_do_not_mix() {
        let id: reunion_model::TaskId = "0123456789abcdef0123456789abcdef".parse().expect("an id");
        let by_id = filters(&TaskSelection { ids: vec![id], ..TaskSelection::default() });
        assert_eq!((by_id.len(), by_id[0].task_id), (1, Some(id)));
        let by_campaign = filters(&TaskSelection { campaign: Some("warm-add".to_owned()), ..TaskSelection::default() });
        assert_eq!((by_campaign.len(), by_campaign[0].campaign.as_deref()), (1, Some("warm-add")));
    }
}
