//! Probable duplicates for people.

use serde_json::Value;

use super::super::super::lines::{line, list, word};
use super::super::decide::count;
use super::super::text::{order, person};

/// Pairs that were merged and are shown; the rest are counted.
const MERGED_SHOWN_MAX: usize = 20;

/// The list of pairs.
pub fn ls(document: &Value) -> String {
    let mut text = String::new();
    if let Some(why) = document["unscored"].as_str() {
        line(&mut text, &format!("no pair could be scored: {why}"));
        return text;
    }
    let pairs = list(&document["pairs"]);
    let (total, members) = (number(&document["pairs_total"]), number(&document["members"]));
    let order = if document["sample"] == true { "in no order" } else { "the most probable first" };
    match total {
        0 => line(&mut text, &format!("of {members} members no two are probably one person and undecided")),
        _ => line(&mut text, &format!("{} of {}, {order}:", pairs.len(), count(total as usize, "pair"))),
    }
    for of in pairs {
        line(&mut text, "");
        pair(&mut text, of);
    }
    let (left_out, skipped) = (number(&document["pairs_left_out"]), number(&document["rows_skipped"]));
    if left_out > 0 {
        line(&mut text, &format!("\n{left_out} less probable pairs are not on the list while these are"));
    }
    if skipped > 0 {
        line(
            &mut text,
            &format!("\n{skipped} times a member was in a group too large to be compared whole; other groups may have found its pairs"),
        );
    }
    text
}

fn pair(text: &mut String, of: &Value) {
    line(text, &format!("{}  {}", word(&of["pair"]), word(&of["evidence"])));
    line(text, &format!("  {}", person(&of["left"])));
    line(text, &format!("  {}", person(&of["right"])));
}

/// What answers came to.
pub fn answers(documents: &[Value]) -> String {
    documents.iter().map(|document| format!("{}: {}", word(&document["pair"]), order(document))).collect()
}

/// What was merged by scores.
pub fn merged(document: &Value) -> String {
    let mut text = String::new();
    let pairs = list(&document["merged"]);
    line(&mut text, &band(&document["band"]));
    let pairs_of = count(pairs.len(), "pair");
    match (pairs.len(), document["dry_run"] == true) {
        (0, _) => line(&mut text, "there is no pair to merge"),
        (_, true) => line(&mut text, &format!("nothing was stored; without --dry-run {pairs_of} would be merged:")),
        (_, false) => line(&mut text, &format!("from the next run on {pairs_of} are one person each:")),
    }
    for of in pairs.iter().take(MERGED_SHOWN_MAX) {
        pair(&mut text, of);
        if document["stored"] == true {
            line(&mut text, &format!("  decision {}", word(&of["decision_id"])));
        }
    }
    if pairs.len() > MERGED_SHOWN_MAX {
        line(&mut text, &format!("and {} more; `reunion members decisions` lists them", pairs.len() - MERGED_SHOWN_MAX));
    }
    text
}

/// What reviews say of a band, in one line.
pub fn band(of: &Value) -> String {
    let from = of["probability_min"].as_f64().unwrap_or_default();
    let to = of["probability_max"].as_f64().map_or("or more".to_owned(), |to| format!("to {to}"));
    let shown = |suffix: &str| {
        let [reviewed, one] = ["reviewed", "one_person"].map(|key| number(&of[format!("{key}{suffix}")]));
        let at_least = of[format!("precision_at_least{suffix}")].as_f64().unwrap_or_default();
        match reviewed {
            0 => "none reviewed".to_owned(),
            _ => format!("{one} of {reviewed} reviewed pairs are one person, which shows {at_least:.3} or more"),
        }
    };
    format!("probability {from} {to}: {}; with all above: {}", shown(""), shown("_from_here"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(id: &str) -> Value {
        json!({ "member_id": id, "phone": "139****0001", "name": "张****", "rows": [{ "source": "pos", "record_id": "C1" }] })
    }

    fn of(pair: &str) -> Value {
        json!({
            "pair": pair, "evidence": "probability 0.998: name exact +9.2, phone one digit +11.0", "left": member("01"), "right": member("02"),
            "decision_id": "0a",
        })
    }

    fn band_of(reviewed: u64, one: u64) -> Value {
        json!({
            "probability_min": 0.999, "probability_max": 0.9999, "reviewed": reviewed, "one_person": one, "precision_at_least": 0.9901, "reviewed_from_here": reviewed,
            "one_person_from_here": one, "precision_at_least_from_here": 0.9901,
        })
    }

    #[test]
    fn a_list_shows_each_pair_with_its_reasons() {
        let mut document = json!({
            "unscored": null, "pairs": [of("0123456789ab")], "pairs_total": 3, "members": 100, "sample": false, "pairs_left_out": 2,
            "rows_skipped": 4,
        });
        insta::assert_snapshot!(ls(&document), @r"
        1 of 3 pairs, the most probable first:

        0123456789ab  probability 0.998: name exact +9.2, phone one digit +11.0
          01  139****0001  张****  1 row: pos/C1
          02  139****0001  张****  1 row: pos/C1

        2 less probable pairs are not on the list while these are

        4 times a member was in a group too large to be compared whole; other groups may have found its pairs
        ");
        document["pairs"] = json!([]);
        document["pairs_total"] = 0.into();
        insta::assert_snapshot!(ls(&document).lines().next().unwrap_or_default(), @"of 100 members no two are probably one person and undecided");
        document["unscored"] = "too few rows".into();
        assert_eq!(ls(&document), "no pair could be scored: too few rows\n");
    }

    #[test]
    fn what_scores_have_merged_is_shown_with_the_proof() {
        let mut document = json!({ "dry_run": false, "stored": true, "band": band_of(300, 300), "merged": vec![of("0123456789ab"); 21] });
        let text = merged(&document);
        insta::assert_snapshot!(text.lines().take(6).collect::<Vec<_>>().join("\n"), @r"
        probability 0.999 to 0.9999: 300 of 300 reviewed pairs are one person, which shows 0.990 or more; with all above: 300 of 300 reviewed pairs are one person, which shows 0.990 or more
        from the next run on 21 pairs are one person each:
        0123456789ab  probability 0.998: name exact +9.2, phone one digit +11.0
          01  139****0001  张****  1 row: pos/C1
          02  139****0001  张****  1 row: pos/C1
          decision 0a
        ");
        assert_eq!(text.lines().last(), Some("and 1 more; `reunion members decisions` lists them"));
        document["dry_run"] = true.into();
        document["stored"] = false.into();
        assert!(merged(&document).contains("nothing was stored; without --dry-run 21 pairs would be merged:"));
        document["merged"] = json!([]);
        assert!(merged(&document).contains("there is no pair to merge"));
    }
}
