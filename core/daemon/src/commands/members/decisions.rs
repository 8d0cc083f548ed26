//! `members decisions`, and what `explain` says of a member's decisions.

use std::collections::{HashMap, HashSet};

use reunion_ledger::DecisionRecord;
use reunion_model::decision::Standing;
use reunion_model::{MemberId, RecordKey};
use reunion_people::PhoneRules;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::Exit;
use crate::failure::Failure;
use crate::run::short;
use crate::state::{State, moment};

use super::super::suppress::phone_rules;
use super::super::table;
use super::super::view::{View, shown_id};
use super::book::Book;
use super::decided;

/// Rows of one side that a line shows; the rest are counted.
const ROWS_SHOWN_MAX: usize = 4;

/// Lists the decisions, the latest first.
pub fn ls(app: &App, state: &State, limit: u32) -> Result<Exit, Failure> {
    let rules = phone_rules(app)?;
    let book = Book { decisions: state.ask(state.ledger.decisions())?, ..Book::default() };
    let standings = book.standings();
    let all: Vec<_> = book.decisions.iter().zip(&standings).rev().take(limit as usize).collect();
    let view = match state.ask(state.ledger.head())? {
        Some(_) => Some(View::open(app, state)?),
        None => None,
    };
    let rows = Rows::new(view.as_ref(), &rules, all.iter().flat_map(|(of, _)| of.decision.records()))?;
    let seen = view.as_ref().map_or(0, |view| view.head.fact_seq);
    let documents: Vec<Value> = all.iter().map(|(of, standing)| document(app, of, standing, &rows, seen)).collect();
    app.print(&documents, |documents| text(documents))?;
    Ok(Exit::Done)
}

fn document(app: &App, of: &DecisionRecord, standing: &Standing, rows: &Rows, seen: u64) -> Value {
    let mut document = decided(app, of);
    let withdrawn = of.withdrawn.as_ref();
    document["state"] = state_of(of, standing).into();
    document["pending"] = (withdrawn.map_or(of.seq, |withdrawn| withdrawn.seq) > seen).into();
    document["left"] = rows.documents(&of.decision.left);
    document["right"] = rows.documents(&of.decision.right);
    document["overtaken_by"] = json!(standing.overtaken_by);
    document["withdrawn"] = withdrawn
        .map(|withdrawn| json!({ "at": moment(withdrawn.at_us, &app.config.timezone), "by": withdrawn.who, "why": withdrawn.why }))
        .into();
    document
}

/// Whether a decision holds.
fn state_of(of: &DecisionRecord, standing: &Standing) -> &'static str {
    if of.withdrawn.is_some() {
        "withdrawn"
    } else if standing.parts.is_empty() {
        "overtaken"
    } else if standing.overtaken_by.is_empty() {
        "in_force"
    } else {
        "in_part"
    }
}

fn text(documents: &[Value]) -> String {
    if documents.is_empty() {
        return "nothing was decided yet".to_owned();
    }
    let mut table = table(&["decision", "kind", "state", "rows", "and rows", "made", "by", "why"]);
    for of in documents {
        let word = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
        let pending = if of["pending"] == true { " from the next run on" } else { "" };
        let state = format!("{}{pending}", word("state").replace('_', " "));
        table.add_row([
            word("decision_id"),
            word("kind"),
            state,
            sides(&of["left"], None),
            sides(&of["right"], None),
            word("made"),
            word("made_by"),
            word("why"),
        ]);
    }
    table.to_string()
}

/// What holds of decisions about some rows of a member, the earliest first.
///
/// # Errors
/// Where the ledger does not answer, or files cannot be read.
pub fn of_member(app: &App, view: &View<'_>, rules: &PhoneRules, own: &HashSet<RecordKey>) -> Result<Vec<Value>, Failure> {
    let book = Book { decisions: view.state.ask(view.state.ledger.decisions())?, ..Book::default() };
    let standings = book.standings();
    let is_of_member = |standing: &Standing| standing.parts.iter().any(|part| part.records().any(|record| own.contains(&record)));
    let found: Vec<_> = book.decisions.iter().zip(&standings).filter(|(_, standing)| is_of_member(standing)).collect();
    let rows = Rows::new(Some(view), rules, found.iter().flat_map(|(of, _)| of.decision.records()))?;
    let document = |(of, standing): &(&DecisionRecord, &Standing)| {
        let mut document = document(app, of, standing, &rows, view.head.fact_seq);
        // What holds, and not what was decided once.
        document["left"] = rows.documents(standing.parts.iter().flat_map(|part| &part.left));
        document["right"] = rows.documents(standing.parts.iter().flat_map(|part| &part.right));
        document
    };
    Ok(found.iter().map(document).collect())
}

/// A decision about a member in one line of its explanation.
pub fn line_of_member(of: &Value, member: &str) -> String {
    let [id, by, made, why] = ["decision_id", "made_by", "made", "why"].map(|key| of[key].as_str().unwrap_or_default());
    let (what, and) = if of["kind"] == "same" { ("one person", "with") } else { ("kept apart", "from") };
    let pending = if of["pending"] == true { " from the next run on" } else { "" };
    let is_own = |side: &Value| side.as_array().is_some_and(|rows| rows.iter().any(|row| row["member_id"] == member));
    let (own, other) = if is_own(&of["left"]) { (&of["left"], &of["right"]) } else { (&of["right"], &of["left"]) };
    let (own, other) = (sides(own, Some(member)), sides(other, Some(member)));
    format!("{what}{pending}: {own} {and} {other}; by decision {id} of {by} on {made}: {why}")
}

/// The rows of one side with commas between them; those of another member than this with its id.
fn sides(rows: &Value, member: Option<&str>) -> String {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = |row: &Value| match (row["source"].as_str(), row["record_id"].as_str()) {
        (Some(source), Some(id)) => {
            let other = row["member_id"].as_str().filter(|other| member.is_some_and(|member| member != *other));
            format!("{source}/{id}{}", other.map(|other| format!(" of member {}", short(other))).unwrap_or_default())
        }
        _ => "a row that is gone".to_owned(),
    };
    let mut texts: Vec<String> = rows.iter().take(ROWS_SHOWN_MAX).map(shown).collect();
    if rows.len() > ROWS_SHOWN_MAX {
        texts.push(format!("and {} more", rows.len() - ROWS_SHOWN_MAX));
    }
    texts.join(", ")
}

/// The rows of decisions: what they are called, and whose they are.
struct Rows<'a> {
    rules: &'a PhoneRules,
    names: HashMap<RecordKey, (String, String)>,
    members: HashMap<RecordKey, MemberId>,
}

impl<'a> Rows<'a> {
    fn new(view: Option<&View<'_>>, rules: &'a PhoneRules, records: impl Iterator<Item = RecordKey>) -> Result<Self, Failure> {
        let keys: HashSet<[u8; 16]> = records.map(|record| record.0).collect();
        let (names, members) = match view.filter(|_| !keys.is_empty()) {
            Some(view) => (view.names_of(&keys)?, view.members_of(&keys)?),
            None => Default::default(),
        };
        Ok(Self { rules, names, members })
    }

    fn documents<'k>(&self, keys: impl IntoIterator<Item = &'k RecordKey>) -> Value {
        let row = |key: &RecordKey| {
            let (source, id) = self.names.get(key).map(|(source, id)| (source.as_str(), shown_id(self.rules, id))).unzip();
            json!({ "source": source, "record_id": id, "member_id": self.members.get(key) })
        };
        keys.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(source: &str, id: &str, member: &str) -> Value {
        json!({ "source": source, "record_id": id, "member_id": member })
    }

    fn decision(kind: &str, state: &str, left: Value, right: Value) -> Value {
        json!({
            "decision_id": "0123456789abcdef0123456789abcdef", "kind": kind, "source": "operator", "made": "2026-09-21T22:30:00+08:00",
            "made_by": "li", "why": "two cards of one person", "state": state, "pending": state == "in_force", "left": left, "right": right,
            "overtaken_by": [], "withdrawn": null,
        })
    }

    #[test]
    fn a_list_says_what_holds() {
        let gone = json!({ "source": null, "record_id": null, "member_id": null });
        let many: Vec<Value> = (0..6).map(|at| row("pos", &format!("C{at}"), "aa")).collect();
        let all = [
            decision("same", "in_force", json!([row("pos", "C1", "aa"), row("shop", "W1", "aa")]), json!([row("pos", "C2", "bb")])),
            decision("apart", "in_part", many.into(), json!([gone])),
            decision("same", "withdrawn", json!([]), json!([])),
        ];
        let shown = text(&all);
        let shown: Vec<&str> = shown.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
         decision                          kind   state                          rows                                        and rows            made                       by  why
         0123456789abcdef0123456789abcdef  same   in force from the next run on  pos/C1, shop/W1                             pos/C2              2026-09-21T22:30:00+08:00  li  two cards of one person
         0123456789abcdef0123456789abcdef  apart  in part                        pos/C0, pos/C1, pos/C2, pos/C3, and 2 more  a row that is gone  2026-09-21T22:30:00+08:00  li  two cards of one person
         0123456789abcdef0123456789abcdef  same   withdrawn                                                                                      2026-09-21T22:30:00+08:00  li  two cards of one person
        ");
        assert_eq!(text(&[]), "nothing was decided yet");
    }

    #[test]
    fn a_member_is_told_what_was_decided_about_it() {
        let same = decision("same", "in_force", json!([row("pos", "C1", "aa")]), json!([row("pos", "C2", "bb00bb00cc")]));
        insta::assert_snapshot!(line_of_member(&same, "aa"), @"one person from the next run on: pos/C1 with pos/C2 of member bb00bb00; by decision 0123456789abcdef0123456789abcdef of li on 2026-09-21T22:30:00+08:00: two cards of one person");
        let apart = decision("apart", "in_part", json!([row("pos", "C1", "bb00bb00cc")]), json!([row("pos", "C2", "aa")]));
        insta::assert_snapshot!(line_of_member(&apart, "aa"), @"kept apart: pos/C2 from pos/C1 of member bb00bb00; by decision 0123456789abcdef0123456789abcdef of li on 2026-09-21T22:30:00+08:00: two cards of one person");
    }
}
