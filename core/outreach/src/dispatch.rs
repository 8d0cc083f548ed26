//! Dispatches: which tasks a channel is given together, and from when on.

use jiff::tz::TimeZone;

use crate::campaign::{Campaign, TaskColumn};
use crate::plan::PlannedTask;

/// What is equal for all tasks of one dispatch, as one text: a JSON array of the values of the
/// channel's `group_by`, null where a task has none.
pub fn group_key(group_by: &[TaskColumn], campaign: &str, task: &PlannedTask) -> String {
    let values = group_by.iter().map(|column| match column {
        TaskColumn::Campaign => Some(campaign.to_owned()),
        TaskColumn::Store => task.store.clone(),
        TaskColumn::Staff => task.staff.clone(),
        TaskColumn::Name => task.name.clone(),
        TaskColumn::Reason => task.reason.clone(),
        TaskColumn::Message => task.message.clone(),
        TaskColumn::Due => task.due_us.map(|due| due.to_string()),
    });
    serde_json::Value::from_iter(values.collect::<Vec<_>>()).to_string()
}

/// The first moment from the clock on at which a task may be sent that waits until `not_before_us`:
/// within the campaign's window. Microseconds UTC; `i64::MAX`: never.
pub fn may_send_at(campaign: &Campaign, not_before_us: i64, clock_us: i64, timezone: &TimeZone) -> i64 {
    let from = clock_us.max(not_before_us);
    campaign.window.as_ref().map_or(from, |window| window.opens_at(from, timezone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Window;
    use reunion_model::{ContactId, MemberId, Phone, TaskId};

    #[test]
    fn groups_cannot_be_confused() {
        let task = |store: Option<&str>| PlannedTask {
            task_id: TaskId::default(),
            contact: ContactId::default(),
            member_id: MemberId::default(),
            touch: 1,
            attempt: 1,
            phone: Phone::from_china_mobile(13800138000),
            store: store.map(str::to_owned),
            staff: None,
            name: None,
            reason: None,
            message: None,
            due_us: Some(5),
            group: String::new(),
        };
        let by = [TaskColumn::Campaign, TaskColumn::Store];
        assert_eq!(group_key(&by, "warm-add", &task(Some("a\",\"b"))), r#"["warm-add","a\",\"b"]"#);
        assert_eq!(group_key(&by, "warm-add", &task(None)), r#"["warm-add",null]"#);
        assert_ne!(group_key(&by, "warm-add", &task(Some("null"))), group_key(&by, "warm-add", &task(None)));
        assert_eq!(group_key(&[], "warm-add", &task(None)), "[]");
        assert_eq!(group_key(&[TaskColumn::Due], "warm-add", &task(None)), r#"["5"]"#);
    }

    #[test]
    fn a_task_waits_for_its_delay_and_then_for_the_window() {
        let mut campaign = Campaign::new("warm-add", "store-list");
        assert_eq!(may_send_at(&campaign, 7, 5, &TimeZone::UTC), 7);
        campaign.window = Some(Window::new("09:00".parse().unwrap(), "20:30".parse().unwrap(), &[]).unwrap());
        assert_eq!(may_send_at(&campaign, 7, 5, &TimeZone::UTC), 9 * 3_600_000_000);
    }
}
