//! Orders about members, and what they came to, for people.

use serde_json::Value;

use super::super::lines::{line, list, word};

/// Rows of a member that are shown by name; the rest are counted.
const ROWS_SHOWN_MAX: usize = 8;

/// What an order came to.
pub fn order(document: &Value) -> String {
    let mut text = String::new();
    for note in list(&document["notes"]) {
        line(&mut text, word(note));
    }
    if let Some(already) = document["already"].as_str() {
        line(&mut text, &format!("{already}; nothing was stored"));
        return text;
    }
    if document["dry_run"] == true {
        line(&mut text, "nothing was stored; without --dry-run this would be decided:");
    }
    let (left, right) = (list(&document["left"]), list(&document["right"]));
    match word(&document["order"]) {
        "merge" => {
            line(&mut text, &format!("from the next run on these are one person, member {}:", word(&document["keeps_id"])));
            persons(&mut text, left);
            persons(&mut text, right);
        }
        "split" => {
            let member = left.first().map_or("", |member| word(&member["member_id"]));
            line(&mut text, &format!("from the next run on these rows are another person than the rest of member {member}:"));
            left.iter().for_each(|member| line(&mut text, &format!("  {}", rows(member))));
            line(&mut text, "the rest:");
            persons(&mut text, right);
        }
        _ => {
            line(&mut text, "from the next run on these are two people, whatever keys their rows share:");
            persons(&mut text, left);
            line(&mut text, "and");
            persons(&mut text, right);
        }
    }
    if document["stored"] == true {
        list(&document["decisions"]).iter().for_each(|decision| line(&mut text, &format!("decision {}", word(&decision["decision_id"]))));
    }
    for of in list(&document["overtaken"]) {
        let rest = if of["in_part"] == true { "holds only in part" } else { "holds no more" };
        line(&mut text, &format!("{}: {rest}", decided(of)));
    }
    text
}

/// What a withdrawal came to.
pub fn undo(document: &Value) -> String {
    let mut text = String::new();
    let decision = decided(&document["decision"]);
    match (document["already"].as_str(), document["dry_run"] == true) {
        (Some(already), _) => line(&mut text, &format!("{decision}: {already}; nothing was stored")),
        (None, true) => line(&mut text, &format!("nothing was stored; without --dry-run from the next run on {decision}: holds no more")),
        (None, false) => line(&mut text, &format!("from the next run on {decision}: holds no more")),
    }
    if document["already"].is_null() {
        for of in list(&document["holds_again"]) {
            let rest = if of["in_part"] == true { "holds again in part" } else { "holds again" };
            line(&mut text, &format!("{}: {rest}", decided(of)));
        }
    }
    text
}

/// A decision in one line: which, what, by whom, when and why.
pub fn decided(of: &Value) -> String {
    let [id, kind, by, made, why] = ["decision_id", "kind", "made_by", "made", "why"].map(|key| word(&of[key]));
    format!("decision {id} ({kind}, by {by} on {made}: {why})")
}

fn persons(text: &mut String, persons: &[Value]) {
    persons.iter().for_each(|of| line(text, &format!("  {}", person(of))));
}

/// A member in one line: its id, what of it may be shown, and its rows.
pub fn person(of: &Value) -> String {
    let shown = [&of["phone"], &of["name"]].into_iter().map(word).filter(|part| !part.is_empty());
    let shown = shown.map(|part| format!("  {part}")).collect::<String>();
    let rows_of = list(&of["rows"]).len();
    let count = if rows_of == 1 { "1 row".to_owned() } else { format!("{rows_of} rows") };
    format!("{}{shown}  {count}: {}", word(&of["member_id"]), rows(of))
}

fn rows(of: &Value) -> String {
    let all = list(&of["rows"]);
    let mut shown: Vec<String> =
        all.iter().take(ROWS_SHOWN_MAX).map(|row| format!("{}/{}", word(&row["source"]), word(&row["record_id"]))).collect();
    if all.len() > ROWS_SHOWN_MAX {
        shown.push(format!("and {} more", all.len() - ROWS_SHOWN_MAX));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: &str = "00000000000000000000000000000001";
    const TWO: &str = "00000000000000000000000000000002";

    fn member(id: &str, rows: usize) -> Value {
        let rows: Vec<Value> = (0..rows).map(|row| json!({ "source": "pos", "record_id": format!("C{row}") })).collect();
        json!({ "member_id": id, "phone": "139****0001", "name": "张****", "rows": rows })
    }

    fn decision() -> Value {
        json!({ "decision_id": TWO, "kind": "apart", "source": "operator", "made": "2026-09-21T22:30:00+08:00", "made_by": "li", "why": "father and son", "in_part": true })
    }

    fn document(what: &str, dry_run: bool) -> Value {
        json!({
            "order": what, "dry_run": dry_run, "stored": !dry_run, "already": null, "decisions": [{ "decision_id": ONE, "kind": "same" }],
            "keeps_id": ONE, "left": [member(ONE, 2)], "right": [member(TWO, 1)], "overtaken": [], "notes": [],
        })
    }

    #[test]
    fn a_merge_says_who_becomes_one_and_under_which_id() {
        let mut merged = document("merge", false);
        merged["overtaken"] = json!([decision()]);
        merged["notes"] = json!(["member 03 was joined to member 01"]);
        insta::assert_snapshot!(order(&merged), @r"
        member 03 was joined to member 01
        from the next run on these are one person, member 00000000000000000000000000000001:
          00000000000000000000000000000001  139****0001  张****  2 rows: pos/C0, pos/C1
          00000000000000000000000000000002  139****0001  张****  1 row: pos/C0
        decision 00000000000000000000000000000001
        decision 00000000000000000000000000000002 (apart, by li on 2026-09-21T22:30:00+08:00: father and son): holds only in part
        ");
    }

    #[test]
    fn a_preview_says_that_nothing_was_stored() {
        insta::assert_snapshot!(order(&document("keep-apart", true)), @r"
        nothing was stored; without --dry-run this would be decided:
        from the next run on these are two people, whatever keys their rows share:
          00000000000000000000000000000001  139****0001  张****  2 rows: pos/C0, pos/C1
        and
          00000000000000000000000000000002  139****0001  张****  1 row: pos/C0
        ");
    }

    #[test]
    fn a_split_says_which_rows_leave_and_which_stay() {
        let mut split = document("split", false);
        split["right"] = json!([member(ONE, 10)]);
        insta::assert_snapshot!(order(&split), @r"
        from the next run on these rows are another person than the rest of member 00000000000000000000000000000001:
          pos/C0, pos/C1
        the rest:
          00000000000000000000000000000001  139****0001  张****  10 rows: pos/C0, pos/C1, pos/C2, pos/C3, pos/C4, pos/C5, pos/C6, pos/C7, and 2 more
        decision 00000000000000000000000000000001
        ");
    }

    #[test]
    fn what_is_so_already_is_not_stored() {
        let mut already = document("merge", false);
        already["already"] = "they are one member already, 01".into();
        insta::assert_snapshot!(order(&already), @"they are one member already, 01; nothing was stored");
    }

    #[test]
    fn a_withdrawal_says_what_holds_again() {
        let mut document = json!({
            "order": "undo", "dry_run": false, "stored": true, "already": null, "decision": decision(), "holds_again": [decision()],
        });
        insta::assert_snapshot!(undo(&document), @r"
        from the next run on decision 00000000000000000000000000000002 (apart, by li on 2026-09-21T22:30:00+08:00: father and son): holds no more
        decision 00000000000000000000000000000002 (apart, by li on 2026-09-21T22:30:00+08:00: father and son): holds again in part
        ");
        document["dry_run"] = true.into();
        insta::assert_snapshot!(undo(&document).lines().next().unwrap_or_default(), @"nothing was stored; without --dry-run from the next run on decision 00000000000000000000000000000002 (apart, by li on 2026-09-21T22:30:00+08:00: father and son): holds no more");
        document["already"] = "wang withdrew it on 2026-09-22T22:30:00+08:00: a mistake".into();
        insta::assert_snapshot!(undo(&document), @"decision 00000000000000000000000000000002 (apart, by li on 2026-09-21T22:30:00+08:00: father and son): wang withdrew it on 2026-09-22T22:30:00+08:00: a mistake; nothing was stored");
    }
}
