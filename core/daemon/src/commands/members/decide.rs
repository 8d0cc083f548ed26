//! What an order comes to: the decisions to record, or why there is nothing to do. Nothing is read or stored here.

use std::collections::{BTreeMap, BTreeSet};

use reunion_ledger::DecisionRecord;
use reunion_model::decision::{Standing, in_force, standings};
use reunion_model::limits::DECISION_RECORDS_MAX;
use reunion_model::{Decision, DecisionId, DecisionKind, MemberId, RecordKey};

use crate::failure::Failure;

use super::book::{Book, Ties};

/// Where ids of decisions come from.
pub type Ids<'a> = dyn FnMut() -> Result<DecisionId, Failure> + 'a;

/// What an order comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is so already; nothing is stored.
    Already(String),
    /// These decisions, in their order.
    New {
        /// What is decided.
        decisions: Vec<Decision>,
        /// The members that they are about: those on the left, and on the right. A split has its member on both.
        sides: [BTreeSet<MemberId>; 2],
        /// Earlier decisions that hold no more, or only in part.
        overtaken: Vec<Overtaken>,
    },
}

/// An earlier decision that a new one takes something from, or that a withdrawal gives something back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overtaken {
    /// The decision.
    pub decision: DecisionId,
    /// Whether some of it holds.
    pub in_part: bool,
}

/// The members are one person.
pub fn merge(book: &Book, members: &[MemberId], ids: &mut Ids<'_>) -> Result<Verdict, Failure> {
    let ties = Ties::new(book, &book.in_force());
    let [first, others @ ..] = members else { return Err(Failure::usage("a merge names members")) };
    if others.iter().all(|other| other == first) {
        return Ok(Verdict::Already(one_already(book, *first)));
    }
    let mut joined = ties.group(*first);
    let left = joined.clone();
    let mut decisions = Vec::new();
    for other in others {
        if joined.contains(other) {
            continue;
        }
        let group = ties.group(*other);
        decisions.push(Decision { id: ids()?, kind: DecisionKind::Same, left: book.keys(&joined), right: book.keys(&group) });
        joined.extend(group);
    }
    if decisions.is_empty() {
        let by = list(ties.within(&joined).iter().map(|decision| decision.id.to_string()));
        return Ok(Verdict::Already(format!("they are one person already from the next run on, by decision {by}")));
    }
    let right = joined.difference(&left).copied().collect();
    new(book, decisions, [left, right])
}

/// Two members are two people.
pub fn keep_apart(book: &Book, one: MemberId, other: MemberId, ids: &mut Ids<'_>) -> Result<Verdict, Failure> {
    if one == other {
        let rows = list(book.person(one).rows.iter().map(|row| format!("{}/{}", row.source, row.record_id)));
        return Err(Failure::usage(format!("they are one member, {one}"))
            .help(format!("to take some of its rows out: `reunion members split {one} --records SOURCE/RECORD_ID`; its rows are {rows}")));
    }
    let [own, others] = [one, other].map(|member| book.keys(&BTreeSet::from([member])));
    let before = book.in_force();
    if let Some(by) = kept_apart(&before, &own, &others).filter(|_| !Ties::new(book, &before).group(one).contains(&other)) {
        return Ok(Verdict::Already(format!("they are kept apart already, by decision {by}")));
    }
    let id = ids()?;
    let apart = |left, right| Decision { id, kind: DecisionKind::Apart, left, right };
    // What becomes one with either of them in the next run goes with it.
    let mut after = book.standing();
    after.push(apart(own, others));
    let ties = Ties::new(book, &in_force(&after));
    let [left, right] = [one, other].map(|member| ties.group(member));
    if left.contains(&other) {
        let by = list(ties.within(&left).iter().map(|decision| decision.id.to_string()));
        return Err(Failure::usage("both are decided to be one person with somebody else, who cannot be with each of them")
            .help(format!("withdraw one of these first: {by}; `reunion members decisions` says what they are")));
    }
    let decision = apart(book.keys(&left), book.keys(&right));
    new(book, vec![decision], [left, right])
}

/// Some rows of a member are another person than the rest. They are rows of it, and not all.
pub fn split(book: &Book, member: MemberId, rows: &[RecordKey], ids: &mut Ids<'_>) -> Result<Verdict, Failure> {
    let own = book.keys(&BTreeSet::from([member]));
    let rest: Vec<RecordKey> = own.iter().copied().filter(|row| !rows.contains(row)).collect();
    if rest.is_empty() {
        return Err(Failure::usage(format!("these are all {} of member {member}", count(own.len(), "row")))
            .help("a split leaves some of them where they are"));
    }
    let before = book.in_force();
    if let Some(by) = kept_apart(&before, rows, &rest) {
        return Ok(Verdict::Already(format!("they are taken apart already from the next run on, by decision {by}")));
    }
    // Whoever becomes one with the member in the next run stays with the rest.
    let mut joining = Ties::new(book, &before).group(member);
    joining.remove(&member);
    let right = rest.into_iter().chain(book.keys(&joining)).collect();
    let decision = Decision { id: ids()?, kind: DecisionKind::Apart, left: rows.to_vec(), right };
    joining.insert(member);
    new(book, vec![decision], [BTreeSet::from([member]), joining])
}

/// What a withdrawal gives back: the decisions that hold again, or more of them.
pub fn undo(book: &Book, id: DecisionId) -> Result<(&DecisionRecord, Vec<Overtaken>), Failure> {
    let Some(withdrawn) = book.decisions.iter().find(|of| of.decision.id == id) else {
        return Err(Failure::usage(format!("there is no decision {id}")).help("`reunion members decisions` lists them"));
    };
    let mut after = book.standing();
    after.retain(|decision| decision.id != id);
    Ok((withdrawn, changed(&book.standing(), &after)))
}

/// What becomes of decisions where others are added or left out.
fn changed(before: &[Decision], after: &[Decision]) -> Vec<Overtaken> {
    let now: BTreeMap<DecisionId, Vec<Decision>> =
        after.iter().zip(standings(after)).map(|(decision, standing)| (decision.id, standing.parts)).collect();
    let changed = |(decision, standing): (&Decision, Standing)| {
        let parts = now.get(&decision.id).filter(|parts| **parts != standing.parts)?;
        let is_whole = std::slice::from_ref(decision) == parts.as_slice();
        Some(Overtaken { decision: decision.id, in_part: !parts.is_empty() && !is_whole })
    };
    before.iter().zip(standings(before)).filter_map(changed).collect()
}

fn new(book: &Book, decisions: Vec<Decision>, sides: [BTreeSet<MemberId>; 2]) -> Result<Verdict, Failure> {
    if let Some(rows) = decisions.iter().map(|decision| decision.records().count()).find(|rows| *rows > DECISION_RECORDS_MAX) {
        return Err(Failure::usage(format!("the members have {rows} rows together, and a decision names at most {DECISION_RECORDS_MAX}"))
            .help("nobody has so many cards: see with `reunion explain` what they are"));
    }
    let before = book.standing();
    let after: Vec<Decision> = before.iter().cloned().chain(decisions.iter().cloned()).collect();
    Ok(Verdict::New { overtaken: changed(&before, &after), decisions, sides })
}

/// The decisions by which no row of the one is with a row of the other; none where that is not so for all.
fn kept_apart(in_force: &[Decision], one: &[RecordKey], other: &[RecordKey]) -> Option<String> {
    let mut by = BTreeSet::new();
    for (one, other) in one.iter().flat_map(|one| other.iter().map(move |other| (one, other))) {
        let keeps = |of: &&Decision| of.kind == DecisionKind::Apart && of.is_between(|record| record == one, |record| record == other);
        by.insert(in_force.iter().find(keeps)?.id.to_string());
    }
    Some(list(by.into_iter()))
}

/// That members are one already, and what will change that.
fn one_already(book: &Book, member: MemberId) -> String {
    let own = book.keys(&BTreeSet::from([member]));
    let is_own = |row: &RecordKey| own.contains(row);
    let splits = |of: &&Decision| of.kind == DecisionKind::Apart && of.is_between(is_own, is_own);
    let already = format!("they are one member already, {member}");
    match book.in_force().iter().find(splits) {
        None => already,
        Some(decision) => {
            let id = decision.id;
            format!("{already}, until the next run takes some of its rows out by decision {id}: `reunion members undo {id}` keeps them")
        }
    }
}

/// Names with commas between them, no more than a few.
pub fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN_MAX: usize = 8;
    let more = names.len().saturating_sub(SHOWN_MAX);
    let mut shown: Vec<String> = names.take(SHOWN_MAX).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// `1 row`, `2 rows`.
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
