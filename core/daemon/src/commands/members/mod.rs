//! `members merge|keep-apart|split|undo|decisions|review`: what operators decide about who is who.
//!
//! An order is a ledger transaction and works while the daemon runs. It speaks of the members as the head has them, and
//! of what decisions make of them in the next run; it is recorded as decisions about their rows ([`decide`]).

mod book;
mod decide;
mod decisions;
mod review;
mod rows;
mod text;

use std::collections::{BTreeSet, HashSet};

use arrow::array::AsArray;
use reunion_ledger::{DecisionRecord, NewDecision};
use reunion_model::schema::MEMBER_ID;
use reunion_model::{Decision, DecisionId, DecisionSource, MemberId, RecordKey};
use reunion_people::PhoneRules;
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Exit, MembersCommand, OrderArgs};
use crate::failure::{Doing, Failure};
use crate::state::{State, moment, now_us};

use super::explain::subject::Subject;
use super::operator;
use super::suppress::phone_rules;
use super::view::{View, shown_id};
use book::{Book, Person};
use decide::{Overtaken, Verdict, count, list};
use rows::RowName;

pub use decisions::{line_of_member, of_member};

/// Runs the command.
pub fn members(app: &App, command: MembersCommand) -> Result<Exit, Failure> {
    let state = app.state()?;
    match command {
        MembersCommand::Merge { members, order } => Order::new(app, &state, order)?.merge(&members),
        MembersCommand::KeepApart { one, other, order } => Order::new(app, &state, order)?.keep_apart(&one, &other),
        MembersCommand::Split { member, records, order } => {
            let rows = rows::rows(&records)?;
            Order::new(app, &state, order)?.split(&member, &rows)
        }
        MembersCommand::Decisions { limit, .. } => decisions::ls(app, &state, limit),
        MembersCommand::Undo { id, order } => undo(app, &state, id, &order),
        MembersCommand::Review(command) => review::review(app, &state, command),
    }
}

/// An order about members that are there.
struct Order<'a> {
    app: &'a App,
    view: View<'a>,
    rules: PhoneRules,
    args: OrderArgs,
    basis: Basis,
    /// What the operator should know beside it.
    notes: Vec<String>,
}

/// What an order rests on.
struct Basis {
    source: DecisionSource,
    /// The score of the pair, where scores could decide about such a one.
    weight_millibits: Option<i64>,
}

impl<'a> Order<'a> {
    fn new(app: &'a App, state: &'a State, args: OrderArgs) -> Result<Self, Failure> {
        let basis = Basis { source: DecisionSource::Operator, weight_millibits: None };
        Ok(Self { app, view: View::open(app, state)?, rules: phone_rules(app)?, args, basis, notes: Vec::new() })
    }

    fn merge(mut self, texts: &[String]) -> Result<Exit, Failure> {
        let members = texts.iter().map(|text| self.member(text)).collect::<Result<Vec<_>, _>>()?;
        let book = self.book(&members)?;
        let verdict = decide::merge(&book, &members, &mut new_id)?;
        self.finish("merge", &book, &verdict)
    }

    fn keep_apart(mut self, one: &str, other: &str) -> Result<Exit, Failure> {
        let (one, other) = (self.member(one)?, self.member(other)?);
        let book = self.book(&[one, other])?;
        let verdict = decide::keep_apart(&book, one, other, &mut new_id)?;
        self.finish("keep-apart", &book, &verdict)
    }

    fn split(mut self, text: &str, rows: &[RowName]) -> Result<Exit, Failure> {
        let member = self.member(text)?;
        let keys = self.rows_of(member, rows)?;
        let book = self.book(&[member])?;
        let verdict = decide::split(&book, member, &keys, &mut new_id)?;
        self.finish("split", &book, &verdict)
    }

    fn book(&self, members: &[MemberId]) -> Result<Book, Failure> {
        Book::open(&self.view)?.with(&self.view, &self.rules, members)
    }

    /// The member that a text of the command line means.
    fn member(&mut self, text: &str) -> Result<MemberId, Failure> {
        match Subject::of(&self.rules, text) {
            Subject::Member(member) => self.member_by_id(member),
            Subject::Phone(phone) => self.member_by_phone(&Subject::Phone(phone), &phone.to_string()),
            Subject::Refused { reason, .. } => Err(Failure::usage(format!(
                "this is neither a member's id of 32 hex digits nor a phone number that is used: {}",
                reason.explain()
            ))),
        }
    }

    fn member_by_id(&mut self, member: MemberId) -> Result<MemberId, Failure> {
        let forwarded = self.view.forwarded(member)?;
        let now = forwarded.into.unwrap_or(member);
        if forwarded.is_gone {
            return Err(Failure::usage(format!("of member {now} nothing is left"))
                .help("all of its rows have left the sources or are in quarantine; `reunion explain` says more"));
        }
        if self.view.keys_of(&HashSet::from([now.0]))?.is_empty() {
            return Err(Failure::usage(format!("there is no member {member}"))
                .help("name it by phone, or find the id: `reunion query \"select member_id, store from members limit 10\"`"));
        }
        if now != member {
            self.notes.push(format!("member {member} was joined to member {now}"));
        }
        Ok(now)
    }

    fn member_by_phone(&self, subject: &Subject, phone: &str) -> Result<MemberId, Failure> {
        let found = self.view.records_where(|rows| subject.is_in(rows))?;
        let ids = found.column_by_name(MEMBER_ID).expect("records have members").as_fixed_size_binary();
        let members: BTreeSet<MemberId> = ids.iter().flatten().filter_map(MemberId::from_slice).collect();
        let members: Vec<MemberId> = members.into_iter().collect();
        match members[..] {
            [member] => Ok(member),
            [] if found.num_rows() == 0 => Err(Failure::usage(format!("no row of any source has the number {phone}"))),
            [] => Err(Failure::usage(format!("{phone} is the number of no member: its rows are in quarantine"))
                .help("`reunion explain` says why; rows in quarantine are nobody's, and nothing can be decided about them")),
            _ => {
                let book = self.book(&members)?;
                let persons = members.iter().map(|member| text::person(&person(book.person(*member), None)));
                Err(Failure::usage(format!("{phone} is the number of {} members", members.len()))
                    .help(format!("name one of them by its id:\n    {}", persons.collect::<Vec<_>>().join("\n    "))))
            }
        }
    }

    /// The keys of rows of a member.
    fn rows_of(&self, member: MemberId, rows: &[RowName]) -> Result<Vec<RecordKey>, Failure> {
        let sources = self.view.sources()?;
        let lookup = self.view.state.keys.lookup();
        let mut keys = Vec::new();
        for RowName { source, record_id } in rows {
            let Some((origin, _)) = sources.iter().find(|(_, name)| name == source) else {
                let names = sources.iter().map(|(_, name)| name.clone());
                return Err(Failure::usage(format!("there is no source `{source}`")).help(format!("the sources are {}", list(names))));
            };
            keys.push(lookup.record(origin, record_id));
        }
        let wanted: HashSet<[u8; 16]> = keys.iter().map(|key| key.0).collect();
        let (names, members) = (self.view.names_of(&wanted)?, self.view.members_of(&wanted)?);
        for (RowName { source, record_id }, key) in rows.iter().zip(&keys) {
            let row = format!("the row {source}/{}", shown_id(&self.rules, record_id));
            match members.get(key) {
                Some(of) if *of == member => {}
                Some(of) => return Err(Failure::usage(format!("{row} is of member {of}, and not of {member}"))),
                None if names.contains_key(key) => {
                    return Err(Failure::usage(format!("{row} is in quarantine, and of no member"))
                        .help("`reunion query \"select source, record_id, reason from quarantine\"` says why"));
                }
                None => {
                    return Err(Failure::usage(format!("{row} is not there"))
                        .help(format!("`reunion explain {member}` shows the member's rows, `reunion query` their ids in full")));
                }
            }
        }
        Ok(keys)
    }

    /// Carries an order out and says what it came to.
    fn finish(&self, what: &str, book: &Book, verdict: &Verdict) -> Result<Exit, Failure> {
        let document = self.carry_out(what, &format!("members {what}"), book, verdict)?;
        self.app.print(&document, text::order)?;
        Ok(Exit::Done)
    }

    /// Records what an order of a command came to, unless it is only to be shown; a document of it.
    fn carry_out(&self, what: &str, command: &str, book: &Book, verdict: &Verdict) -> Result<Value, Failure> {
        let mut document = json!({
            "order": what, "dry_run": self.args.dry_run, "stored": false, "already": Value::Null, "decisions": [], "keeps_id": Value::Null,
            "left": [], "right": [], "overtaken": [], "notes": self.notes,
        });
        match verdict {
            Verdict::Already(why) => document["already"] = why.as_str().into(),
            Verdict::New { decisions, sides, overtaken } => {
                if !self.args.dry_run {
                    self.store(what, command, decisions, sides)?;
                    document["stored"] = true.into();
                }
                document["decisions"] =
                    decisions.iter().map(|decision| json!({ "decision_id": decision.id, "kind": decision.kind })).collect();
                let named =
                    |side: fn(&Decision) -> &Vec<RecordKey>| -> BTreeSet<RecordKey> { decisions.iter().flat_map(side).copied().collect() };
                let (left, right) = (named(|decision| &decision.left), named(|decision| &decision.right));
                document["left"] = book.by_founding(&sides[0]).iter().map(|of| person(of, Some(&left))).collect();
                document["right"] = book.by_founding(&sides[1]).iter().map(|of| person(of, Some(&right))).collect();
                let all = sides[0].union(&sides[1]).copied().collect();
                let keeps = book.by_founding(&all).first().filter(|_| what == "merge").map(|of| of.id);
                document["keeps_id"] = json!(keeps);
                document["overtaken"] = overtaken_documents(self.app, book, overtaken);
            }
        }
        Ok(document)
    }

    fn store(&self, what: &str, command: &str, decisions: &[Decision], sides: &[BTreeSet<MemberId>; 2]) -> Result<(), Failure> {
        let members = sides[0].union(&sides[1]).map(ToString::to_string).collect::<Vec<_>>();
        let made_us = now_us();
        let new = |decision: &Decision| NewDecision {
            subject: match what {
                "split" => format!("decision {}: {} of member {}", decision.id, count(decision.left.len(), "row"), members.join(", ")),
                _ => format!("decision {}: members {}", decision.id, members.join(", ")),
            },
            decision: decision.clone(),
            source: self.basis.source,
            weight_millibits: self.basis.weight_millibits,
            made_us,
            made_by: operator(),
            why: self.args.why.clone().unwrap_or_default(),
            what: command.to_owned(),
        };
        let new: Vec<NewDecision> = decisions.iter().map(new).collect();
        self.view.state.ask(self.view.state.ledger.decide(&new))
    }
}

/// Withdraws a decision, unless that is only to be shown, and says what holds again.
fn undo(app: &App, state: &State, id: DecisionId, args: &OrderArgs) -> Result<Exit, Failure> {
    let book = Book { decisions: state.ask(state.ledger.decisions())?, ..Book::default() };
    let (decision, holds_again) = decide::undo(&book, id)?;
    let mut document = json!({
        "order": "undo", "dry_run": args.dry_run, "stored": false, "already": Value::Null, "decision": decided(app, decision),
        "holds_again": overtaken_documents(app, &book, &holds_again),
    });
    if let Some(withdrawn) = &decision.withdrawn {
        let at = moment(withdrawn.at_us, &app.config.timezone);
        document["already"] = format!("{} withdrew it on {at}: {}", withdrawn.who, withdrawn.why).into();
    } else if !args.dry_run {
        let subject = format!("decision {id}: {} of {}", decision.decision.kind.name(), decision.made_by);
        let why = args.why.as_deref().unwrap_or_default();
        document["stored"] = state.ask(state.ledger.withdraw(id, &subject, &operator(), why, now_us()))?.into();
    }
    app.print(&document, text::undo)?;
    Ok(Exit::Done)
}

/// A decision as output shows it: who, when, why.
fn decided(app: &App, of: &DecisionRecord) -> Value {
    json!({
        "decision_id": of.decision.id, "kind": of.decision.kind, "source": of.source,
        "made": moment(of.made_us, &app.config.timezone), "made_by": of.made_by, "why": of.why,
    })
}

fn overtaken_documents(app: &App, book: &Book, overtaken: &[Overtaken]) -> Value {
    let document = |of: &Overtaken| {
        let record = book.decisions.iter().find(|record| record.decision.id == of.decision)?;
        let mut document = decided(app, record);
        document["in_part"] = of.in_part.into();
        Some(document)
    };
    overtaken.iter().filter_map(document).collect()
}

/// A member, with those of its rows that are named, or all.
fn person(of: &Person, named: Option<&BTreeSet<RecordKey>>) -> Value {
    let rows = of.rows.iter().filter(|row| named.is_none_or(|named| named.contains(&row.key)));
    let rows = rows.map(|row| json!({ "source": row.source, "record_id": row.record_id }));
    json!({ "member_id": of.id, "phone": of.phone, "name": of.name, "rows": rows.collect::<Vec<_>>() })
}

/// An id of a decision, random.
fn new_id() -> Result<DecisionId, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).doing(|| "the system gives no random numbers".to_owned())?;
    Ok(DecisionId(random))
}
