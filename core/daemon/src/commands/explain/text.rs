//! An explanation for people.

use serde_json::Value;

use crate::run::short;

use super::super::lines::{line, list, word};
use super::super::members::line_of_member;

/// The document as text.
pub fn text(result: &Value) -> String {
    let mut text = String::new();
    let as_of = format!("as of generation {} ({})", result["generation"], word(&result["clock"]));
    match (result["phone"].as_str(), result["refused"].is_object()) {
        (Some(phone), _) => line(&mut text, &format!("phone {phone}, {as_of}")),
        (None, true) => {
            let refused = &result["refused"];
            line(&mut text, &format!("{} is not used as a phone: {}; {as_of}", word(&refused["cell"]), word(&refused["because"])));
        }
        (None, false) => line(&mut text, &as_of),
    }
    if let Some(into) = result["forwarded_to"].as_str() {
        line(&mut text, &format!("the member was joined to member {into}"));
    }
    if result["gone"] == true {
        line(&mut text, "all rows of the member have left the sources or are in quarantine");
    }
    records(&mut text, list(&result["records"]));
    list(&result["members"]).iter().for_each(|of| member(&mut text, of));
    let contact = &result["contact"];
    if !list(&contact["tasks"]).is_empty() {
        line(&mut text, "\ntasks of these numbers that are another member's, or nobody's any more");
        list(&contact["tasks"]).iter().for_each(|of| task(&mut text, of));
    }
    for entry in list(&contact["suppressions"]) {
        let until = entry["until"].as_str().map(|until| format!(" until {until}")).unwrap_or_default();
        let (who, source, since, why) = (word(&entry["set_by"]), word(&entry["source"]), word(&entry["since"]), word(&entry["reason"]));
        line(&mut text, &format!("suppressed since {since}{until} by {who} ({source}): {why}"));
    }
    for link in list(&contact["links"]) {
        line(&mut text, &format!("linked in {} since {}", word(&link["channel"]), word(&link["since"])));
    }
    text
}

fn records(text: &mut String, records: &[Value]) {
    if records.is_empty() {
        line(text, "no row of any source has it");
    }
    for record in records {
        let fate = match (record["quarantined"].as_str(), record["member_id"].as_str()) {
            (Some(code), _) => format!("in quarantine: {code}: {}", word(&record["because"])),
            (None, Some(member)) => format!("member {}", short(member)),
            (None, None) => "of no member".to_owned(),
        };
        line(text, &format!("  row {} of {}: {fate}", word(&record["record_id"]), word(&record["source"])));
    }
}

fn member(text: &mut String, member: &Value) {
    let rows = if member["records"] == 1 { "1 row".to_owned() } else { format!("{} rows", member["records"]) };
    line(text, &format!("\nmember {}, made of {rows}", word(&member["member_id"])));
    if member["rules_changed"] == true {
        line(text, "  who is who was decided by other rules or another version; the keys below are read by the present ones");
    }
    for row in list(&member["rows"]) {
        let (id, source) = (word(&row["record_id"]), word(&row["source"]));
        let updated = row["updated_at"].as_str().map(|at| format!(", updated {at}")).unwrap_or_default();
        let by = list(&row["joined_by"]).iter().map(joined_by).collect::<Vec<_>>().join(" and ");
        let by = if by.is_empty() { by } else { format!(", joined by {by}") };
        line(text, &format!("  row {id} of {source}{updated}{by}"));
    }
    list(&member["not_used"]).iter().for_each(|of| not_used(text, of));
    for decision in list(&member["who_is_who"]) {
        line(text, &format!("  {}", line_of_member(decision, word(&member["member_id"]))));
    }
    for column in list(&member["columns"]) {
        let value = column["value"].as_str().unwrap_or("none, since it would be too large for the column");
        let from = list(&column["from"]).iter().map(origin).collect::<Vec<_>>().join("; ");
        let from = if from.is_empty() { from } else { format!(" of {from}") };
        line(text, &format!("  {} = {value}  ({}{from})", word(&column["column"]), rule(column)));
    }
    for tag in list(&member["tags"]) {
        line(text, &format!("  tag {} since {}: {}", word(&tag["tag"]), word(&tag["since"]), word(&tag["rule"])));
    }
    list(&member["tasks"]).iter().for_each(|of| task(text, of));
    for decision in list(&member["decisions"]) {
        let (campaign, code, because) = (word(&decision["campaign"]), word(&decision["decision"]), word(&decision["because"]));
        line(text, &format!("  no task of {campaign}: {code}: {because}"));
    }
}

/// What rows have in common: `phone 138****8000`.
fn joined_by(by: &Value) -> String {
    let pairs = list(&by["columns"]).iter().zip(list(&by["values"]));
    pairs.map(|(column, value)| format!("{} {}", word(column), word(value))).collect::<Vec<_>>().join(", ")
}

/// A value that does not join all who have it, and why.
fn not_used(text: &mut String, of: &Value) {
    let rows = list(&of["rows"]).iter().map(|row| format!("{} {}", word(&row["source"]), word(&row["record_id"])));
    let rows = rows.collect::<Vec<_>>().join("; ");
    let (column, count, max) = (word(&of["column"]), &of["count"], &of["max"]);
    let too = match (of["member_id"].as_str(), &of["quarantined"]) {
        (Some(member), _) => format!("member {} has it too, and ", short(member)),
        (None, Value::Null) => String::new(),
        (None, rows) if *rows == 1 => "a row in quarantine has it too: ".to_owned(),
        (None, rows) => format!("{rows} rows in quarantine have it too: "),
    };
    let why = match word(&of["why"]) {
        "blocked" => "the value is blocked".to_owned(),
        "too_common" => format!("{count} rows have it, and a value on more than {max} is nobody's"),
        "values_max" => format!("one member would have {count} values of {column}, where {max} are allowed"),
        "kept_apart" => format!("decision {} keeps them apart", word(&of["decision_id"])),
        "household" => "each name on a number is a member".to_owned(),
        "recycled" if of["quarantined"].is_null() => "the number came from one to the other".to_owned(),
        "recycled" => "their phone is somebody else's now".to_owned(),
        "more" => format!("{count} more members have it too"),
        "other_rules" => "the next run decides by the present rules".to_owned(),
        _ => "nothing says why; this is a defect of the program".to_owned(),
    };
    let config = of["config"].as_str().and_then(|key| key.rsplit_once('.'));
    let config = config.map(|(table, key)| format!(" ([{table}] {key})")).unwrap_or_default();
    line(text, &format!("  not used: {} of {rows}: {too}{why}{config}", joined_by(of)));
}

/// A rule with what it was given: `source_priority crm, pos`.
fn rule(column: &Value) -> String {
    let name = word(&column["rule"]);
    let sources = words(&column["sources"]);
    if sources.is_empty() { name.to_owned() } else { format!("{name} {sources}") }
}

/// A row that a value came from, and when that row last changed.
fn origin(row: &Value) -> String {
    let updated = row["updated_at"].as_str().map(|at| format!(", {at}")).unwrap_or_default();
    format!("{} {}{updated}", word(&row["source"]), word(&row["record_id"]))
}

fn task(text: &mut String, task: &Value) {
    let not_before = task["not_before"].as_str().map(|at| format!("not before {at}"));
    let why = ["code", "because", "message", "outcome"].into_iter().filter_map(|key| task[key].as_str().map(str::to_owned));
    let why: Vec<String> = why.chain(not_before).filter(|part| !part.is_empty()).collect();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(": ")) };
    let (id, campaign) = (word(&task["task_id"]), word(&task["campaign"]));
    line(text, &format!("  task {} of {campaign}: {} since {}{why}", short(id), word(&task["state"]), word(&task["changed"])));
}

fn words(value: &Value) -> String {
    list(value).iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One of each reason why a value does not join.
    const NOT_USED: [&str; 9] = [
        r#"{ "why": "blocked", "column": "card", "config": "identity.limits.card.blocked" }"#,
        r#"{ "why": "too_common", "column": "card", "count": 61, "max": 50, "config": "identity.limits.card.records_max" }"#,
        r#"{ "why": "values_max", "column": "phone", "count": 11, "max": 10, "config": "identity.limits.phone.values_max", "member_id": "89abcdef89abcdef89abcdef89abcdef" }"#,
        r#"{ "why": "kept_apart", "decision_id": "af5b88840eba44e0090b82b0a53f4b04", "member_id": "89abcdef89abcdef89abcdef89abcdef" }"#,
        r#"{ "why": "household", "config": "identity.shared_phone.policy", "member_id": "89abcdef89abcdef89abcdef89abcdef" }"#,
        r#"{ "why": "recycled", "config": "identity.shared_phone.recycled_after_days", "member_id": "89abcdef89abcdef89abcdef89abcdef" }"#,
        r#"{ "why": "recycled", "config": "identity.shared_phone.recycled_after_days", "quarantined": 2 }"#,
        r#"{ "why": "other_rules", "member_id": "89abcdef89abcdef89abcdef89abcdef" }"#,
        r#"{ "why": "more", "count": 7 }"#,
    ];

    #[test]
    fn a_member_is_explained_from_row_to_task() {
        let result = json!({
            "phone": "138****8000", "refused": null, "generation": 7, "clock": "2026-09-21T22:30:00+08:00", "forwarded_to": null, "gone": false,
            "records": [
                { "source": "pos", "record_id": "C1", "member_id": "0123456789abcdef0123456789abcdef", "quarantined": null, "because": null },
                { "source": "pos", "record_id": "C9", "member_id": null, "quarantined": "phone_multiple", "because": "the cell holds more than one number" },
            ],
            "members": [{
                "member_id": "0123456789abcdef0123456789abcdef", "records": 2,
                "rows": [
                    { "source": "pos", "record_id": "C1", "updated_at": "2026-03-04T05:06:07Z", "joined_by": [{ "columns": ["phone"], "values": ["138****8000"], "rows": 2 }] },
                    { "source": "shop", "record_id": "S1", "updated_at": null, "joined_by": [
                        { "columns": ["phone"], "values": ["138****8000"], "rows": 2 },
                        { "columns": ["name", "birthday"], "values": ["王****", "199****4-01"], "rows": 2 },
                    ] },
                    { "source": "shop", "record_id": "S2", "updated_at": null, "joined_by": [] },
                ],
                "not_used": NOT_USED.iter().map(|why| {
                    let mut of = json!({ "columns": ["card"], "values": ["88****"], "rows": [{ "source": "pos", "record_id": "C1" }, { "source": "shop", "record_id": "S1" }] });
                    let why: Value = serde_json::from_str(why).unwrap();
                    of.as_object_mut().unwrap().extend(why.as_object().unwrap().clone());
                    of
                }).collect::<Vec<_>>(),
                "columns": [
                    { "column": "store", "value": "西湖店", "rule": "most_recent", "from": [{ "source": "pos", "record_id": "C1", "updated_at": "2026-03-04T05:06:07Z" }] },
                    { "column": "name", "value": "王****", "rule": "source_priority", "sources": ["shop", "pos"], "from": [{ "source": "shop", "record_id": "S1", "updated_at": null }] },
                    { "column": "labels", "value": "老客;****", "rule": "union", "separator": ";", "from": [
                        { "source": "pos", "record_id": "C1", "updated_at": "2026-03-04T05:06:07Z" }, { "source": "shop", "record_id": "S1", "updated_at": null },
                    ] },
                    { "column": "points", "value": null, "too_large": true, "rule": "sum", "from": [{ "source": "pos", "record_id": "C1", "updated_at": "2026-03-04T05:06:07Z" }] },
                    { "column": "sms_consent", "value": "unknown", "rule": "consent", "from": [] },
                ],
                "tags": [{ "tag": "dormant", "since": "2026-09-20T22:30:00+08:00", "rule": "days_since_last_order > 180" }],
                "tasks": [
                    { "task_id": "ffff456789abcdef0123456789abcdef", "campaign": "warm-add", "state": "refused", "changed": "2026-09-21T22:31:00+08:00",
                      "code": "suppressed", "because": "the phone is on the suppression list", "message": null, "outcome": null, "not_before": null },
                    { "task_id": "eeee456789abcdef0123456789abcdef", "campaign": "warm-add", "state": "planned", "changed": "2026-09-21T22:31:00+08:00",
                      "code": null, "because": null, "message": null, "outcome": null, "not_before": "2026-09-22T09:00:00+08:00" },
                ],
                "decisions": [{ "campaign": "key-members", "decision": "held_out", "because": "the phone is in the campaign's control group" }],
            }],
            "contact": { "tasks": [], "links": [{ "channel": "store-list", "since": "2026-09-21T22:31:00+08:00" }], "suppressions": [
                { "reason": "asked", "source": "operator", "set_by": "li", "since": "2026-09-21T22:31:00+08:00", "until": null }
            ]},
        });
        insta::assert_snapshot!(text(&result), @r"
        phone 138****8000, as of generation 7 (2026-09-21T22:30:00+08:00)
          row C1 of pos: member 01234567
          row C9 of pos: in quarantine: phone_multiple: the cell holds more than one number

        member 0123456789abcdef0123456789abcdef, made of 2 rows
          row C1 of pos, updated 2026-03-04T05:06:07Z, joined by phone 138****8000
          row S1 of shop, joined by phone 138****8000 and name 王****, birthday 199****4-01
          row S2 of shop
          not used: card 88**** of pos C1; shop S1: the value is blocked ([identity.limits.card] blocked)
          not used: card 88**** of pos C1; shop S1: 61 rows have it, and a value on more than 50 is nobody's ([identity.limits.card] records_max)
          not used: card 88**** of pos C1; shop S1: member 89abcdef has it too, and one member would have 11 values of phone, where 10 are allowed ([identity.limits.phone] values_max)
          not used: card 88**** of pos C1; shop S1: member 89abcdef has it too, and decision af5b88840eba44e0090b82b0a53f4b04 keeps them apart
          not used: card 88**** of pos C1; shop S1: member 89abcdef has it too, and each name on a number is a member ([identity.shared_phone] policy)
          not used: card 88**** of pos C1; shop S1: member 89abcdef has it too, and the number came from one to the other ([identity.shared_phone] recycled_after_days)
          not used: card 88**** of pos C1; shop S1: 2 rows in quarantine have it too: their phone is somebody else's now ([identity.shared_phone] recycled_after_days)
          not used: card 88**** of pos C1; shop S1: member 89abcdef has it too, and the next run decides by the present rules
          not used: card 88**** of pos C1; shop S1: 7 more members have it too
          store = 西湖店  (most_recent of pos C1, 2026-03-04T05:06:07Z)
          name = 王****  (source_priority shop, pos of shop S1)
          labels = 老客;****  (union of pos C1, 2026-03-04T05:06:07Z; shop S1)
          points = none, since it would be too large for the column  (sum of pos C1, 2026-03-04T05:06:07Z)
          sms_consent = unknown  (consent)
          tag dormant since 2026-09-20T22:30:00+08:00: days_since_last_order > 180
          task ffff4567 of warm-add: refused since 2026-09-21T22:31:00+08:00: suppressed: the phone is on the suppression list
          task eeee4567 of warm-add: planned since 2026-09-21T22:31:00+08:00: not before 2026-09-22T09:00:00+08:00
          no task of key-members: held_out: the phone is in the campaign's control group
        suppressed since 2026-09-21T22:31:00+08:00 by li (operator): asked
        linked in store-list since 2026-09-21T22:31:00+08:00
        ");
    }

    #[test]
    fn a_number_that_is_refused_says_why() {
        let result = json!({
            "phone": null, "generation": 7, "clock": "2026-09-21T22:30:00+08:00", "records": [], "members": [],
            "refused": { "cell": "138****0000", "code": "phone_placeholder", "because": "the number is on the list of placeholders" },
            "forwarded_to": null, "gone": false, "contact": { "tasks": [], "links": [], "suppressions": [] },
        });
        insta::assert_snapshot!(text(&result), @r"
        138****0000 is not used as a phone: the number is on the list of placeholders; as of generation 7 (2026-09-21T22:30:00+08:00)
        no row of any source has it
        ");
    }

    #[test]
    fn a_member_that_was_joined_to_another_leads_there() {
        let result = json!({
            "phone": null, "refused": null, "generation": 7, "clock": "2026-09-21T22:30:00+08:00", "records": [], "members": [],
            "forwarded_to": "0123456789abcdef0123456789abcdef", "gone": true, "contact": { "tasks": [], "links": [], "suppressions": [] },
        });
        insta::assert_snapshot!(text(&result), @r"
        as of generation 7 (2026-09-21T22:30:00+08:00)
        the member was joined to member 0123456789abcdef0123456789abcdef
        all rows of the member have left the sources or are in quarantine
        no row of any source has it
        ");
    }
}
