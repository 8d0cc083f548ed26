//! `members review ls|accept|reject|merge`: probable duplicates, which keys cannot decide about and people can.
//!
//! The pairs are scored when they are asked for, once for each generation ([`candidates`]), and no run waits for it. An
//! answer is an order as any other of `members`. By their scores alone pairs are merged only where somebody orders
//! it, and only as far as the answers have shown that scores are right ([`gate`]).

mod candidates;
mod gate;
mod text;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use reunion_ledger::{DecisionRecord, NewDecision};
use reunion_model::{Decision, DecisionKind, DecisionSource, MemberId};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::{Exit, OrderArgs, ReviewAnswerArgs, ReviewCommand, ReviewLsArgs, ReviewMergeArgs};
use crate::failure::Failure;
use crate::run::Progress;
use crate::state::{State, now_us};

use super::super::operator;
use super::super::suppress::phone_rules;
use super::super::view::View;
use super::book::{Book, Ties};
use super::decide;
use super::{Basis, Order, new_id, person};
use candidates::{Candidate, Candidates};
use gate::Band;

/// Runs the command.
pub fn review(app: &App, state: &State, command: ReviewCommand) -> Result<Exit, Failure> {
    match command {
        ReviewCommand::Ls(args) => ls(app, state, &args),
        ReviewCommand::Accept(args) => answer(app, state, &args, DecisionKind::Same),
        ReviewCommand::Reject(args) => answer(app, state, &args, DecisionKind::Apart),
        ReviewCommand::Merge(args) => merge(app, state, &args),
    }
}

/// The probable duplicates of the head. Whoever waits for them to be scored sees why.
fn candidates(app: &App, view: &View<'_>) -> Result<Candidates, Failure> {
    let progress = Progress::new(app.format);
    Candidates::of_head(view, || progress.stage("comparing members"))
}

/// Lists pairs that nobody has decided about.
fn ls(app: &App, state: &State, args: &ReviewLsArgs) -> Result<Exit, Failure> {
    let view = View::open(app, state)?;
    let found = candidates(app, &view)?;
    let book = Book::open(&view)?;
    let answers = Answers::new(&book);
    let is_asked_for = |pair: &&Candidate| {
        pair.probability >= args.probability_min
            && args.probability_max.is_none_or(|below| pair.probability < below)
            && !answers.are_decided(pair.left, pair.right)
    };
    let mut open: Vec<&Candidate> = found.pairs.iter().filter(is_asked_for).collect();
    if args.sample {
        // Names of pairs are hashes: their order says nothing of the pairs.
        open.sort_by(|one, other| one.id.cmp(&other.id));
    }
    let total = open.len();
    open.truncate(args.limit as usize);
    let members: Vec<MemberId> = open.iter().flat_map(|pair| [pair.left, pair.right]).collect();
    let book = book.with(&view, &phone_rules(app)?, &members)?;
    let document = json!({
        "generation": found.generation, "members": found.members, "compared": found.columns, "unscored": found.unscored,
        "pairs_total": total, "pairs_left_out": found.left_out, "rows_skipped": found.rows_skipped, "sample": args.sample,
        "pairs": open.iter().map(|pair| pair_document(pair, &found.columns, &book)).collect::<Vec<_>>(),
    });
    app.print(&document, text::ls)?;
    Ok(Exit::Done)
}

fn pair_document(pair: &Candidate, columns: &[String], book: &Book) -> Value {
    let reason = |(column, (level, bits)): (&String, &(Option<String>, f64))| {
        level.as_ref().map(|level| json!({ "column": column, "agreement": level, "bits": bits }))
    };
    json!({
        "pair": pair.id, "probability": pair.probability, "weight_bits": pair.weight_bits,
        "left": person(book.person(pair.left), None), "right": person(book.person(pair.right), None),
        "reasons": columns.iter().zip(&pair.reasons).filter_map(reason).collect::<Vec<_>>(),
        "evidence": pair.evidence(columns),
    })
}

/// Decides that each of these pairs is one person, or two.
fn answer(app: &App, state: &State, args: &ReviewAnswerArgs, kind: DecisionKind) -> Result<Exit, Failure> {
    let mut order = Order::new(app, state, OrderArgs { why: None, dry_run: args.dry_run })?;
    let found = candidates(app, &order.view)?;
    let pairs = args.pairs.iter().map(|id| known(&found, id)).collect::<Result<Vec<_>, _>>()?;
    let members: Vec<MemberId> = pairs.iter().flat_map(|pair| [pair.left, pair.right]).collect();
    let mut book = order.book(&members)?;
    let mut documents = Vec::new();
    let mut answered = Ok(());
    for pair in pairs {
        let weight_millibits = pair.has_names_alike(&found.columns).then(|| pair.weight_millibits());
        order.basis = Basis { source: DecisionSource::Review, weight_millibits };
        order.args.why = Some(why(pair, &found.columns, args.why.as_deref()));
        match answer_one(&order, &mut book, pair, kind) {
            Ok(document) => documents.push(document),
            Err(failure) => {
                answered = Err(failure);
                break;
            }
        }
    }
    if answered.is_ok() || !documents.is_empty() {
        app.print(&documents, |documents| text::answers(documents))?;
    }
    answered.map(|()| Exit::Done)
}

fn answer_one(order: &Order<'_>, book: &mut Book, pair: &Candidate, kind: DecisionKind) -> Result<Value, Failure> {
    // The answer before this one counts.
    book.decisions = order.view.state.ask(order.view.state.ledger.decisions())?;
    let mut document = match kind {
        DecisionKind::Same => {
            let verdict = decide::merge(book, &[pair.left, pair.right], &mut new_id)?;
            order.carry_out("merge", "members review accept", book, &verdict)?
        }
        DecisionKind::Apart => {
            let verdict = decide::keep_apart(book, pair.left, pair.right, &mut new_id)?;
            order.carry_out("keep-apart", "members review reject", book, &verdict)?
        }
    };
    document["pair"] = pair.id.as_str().into();
    Ok(document)
}

fn known<'a>(found: &'a Candidates, id: &str) -> Result<&'a Candidate, Failure> {
    found.pairs.iter().find(|pair| pair.id == id).ok_or_else(|| {
        Failure::usage(format!("there is no pair {id} among the probable duplicates of generation {}", found.generation))
            .help("`reunion members review ls` lists them; one whose members were merged or have changed is gone")
    })
}

/// What led to a decision: what the score says, and what the operator does.
fn why(pair: &Candidate, columns: &[String], own: Option<&str>) -> String {
    let evidence = pair.evidence(columns);
    own.map_or_else(|| evidence.clone(), |own| format!("{own} ({evidence})"))
}

/// Merges pairs by their scores, as far as reviews have shown that these are right.
fn merge(app: &App, state: &State, args: &ReviewMergeArgs) -> Result<Exit, Failure> {
    let view = View::open(app, state)?;
    let found = candidates(app, &view)?;
    let book = Book::open(&view)?;
    let bands = gate::bands(&gate::reviews(&book.decisions, &book.standings()));
    let Some(band) = gate::lowest(&bands, args.precision_min) else { return Err(not_shown(&bands, args.precision_min)) };
    let chosen = choose(&found, &Answers::new(&book), band.weight_millibits_min, args.limit as usize);
    let members: Vec<MemberId> = chosen.iter().flat_map(|pair| [pair.left, pair.right]).collect();
    let book = book.with(&view, &phone_rules(app)?, &members)?;
    let new = chosen.iter().map(|pair| by_score(&book, pair, &found.columns, args)).collect::<Result<Vec<_>, _>>()?;
    let is_stored = !args.dry_run && !new.is_empty();
    if is_stored {
        state.ask(state.ledger.decide(&new))?;
    }
    let merged = chosen.iter().zip(&new).map(|(pair, new)| {
        let mut document = pair_document(pair, &found.columns, &book);
        document["decision_id"] = json!(new.decision.id);
        document
    });
    let document = json!({
        "dry_run": args.dry_run, "stored": is_stored, "precision_min": args.precision_min, "band": band_document(band),
        "merged": merged.collect::<Vec<_>>(),
    });
    app.print(&document, text::merged)?;
    Ok(Exit::Done)
}

/// The pairs that scores may merge, the most probable first, each member in one of them at most: what makes three people
/// one is looked at again once two of them are.
fn choose<'a>(found: &'a Candidates, answers: &Answers, weight_millibits_min: i64, limit: usize) -> Vec<&'a Candidate> {
    let mut taken = HashSet::new();
    let mut may_be_taken = |pair: &&Candidate| {
        let is_open =
            !answers.are_decided(pair.left, pair.right) && ![pair.left, pair.right].iter().any(|of| answers.of_people.contains(of));
        let is_good = pair.weight_millibits() >= weight_millibits_min && pair.has_names_alike(&found.columns);
        let is_free = is_open && is_good && !taken.contains(&pair.left) && !taken.contains(&pair.right);
        if is_free {
            taken.extend([pair.left, pair.right]);
        }
        is_free
    };
    found.pairs.iter().filter(|pair| may_be_taken(pair)).take(limit).collect()
}

/// Nothing was decided about either member by people, and so nothing is overtaken.
fn by_score(book: &Book, pair: &Candidate, columns: &[String], args: &ReviewMergeArgs) -> Result<NewDecision, Failure> {
    let keys = |member| book.keys(&BTreeSet::from([member]));
    let decision = Decision { id: new_id()?, kind: DecisionKind::Same, left: keys(pair.left), right: keys(pair.right) };
    Ok(NewDecision {
        subject: format!("decision {}: members {}, {}", decision.id, pair.left, pair.right),
        decision,
        source: DecisionSource::Score,
        weight_millibits: Some(pair.weight_millibits()),
        made_us: now_us(),
        made_by: operator(),
        why: why(pair, columns, args.why.as_deref()),
        what: "members review merge".to_owned(),
    })
}

/// That scores may not merge yet, and what is missing.
fn not_shown(bands: &[Band], precision_min: f64) -> Failure {
    let lines = bands.iter().map(|band| format!("\n    {}", text::band(&band_document(band)))).collect::<String>();
    let enough = gate::reviews_min(precision_min);
    Failure::guard(format!("reviews do not show yet that scores are right in {precision_min} of all cases; nothing was merged")).help(
        format!(
            "`reunion members review ls --sample --probability-min 0.999 --probability-max 0.9999` shows pairs of one band as they come: \
         accept or reject {enough} of them, more where some are wrong. So far:{lines}"
        ),
    )
}

fn band_document(band: &Band) -> Value {
    json!({
        "probability_min": band.probability_min, "probability_max": band.probability_max, "reviewed": band.own.reviewed, "one_person": band.own.one,
        "precision_at_least": band.own.precision_min(), "reviewed_from_here": band.from_here.reviewed,
        "one_person_from_here": band.from_here.one, "precision_at_least_from_here": band.from_here.precision_min(),
    })
}

/// What was decided about members, as the next run will have it.
struct Answers {
    ties: Ties,
    /// Of each member the decisions that keep it apart from others, and on which side of them it is.
    apart: BTreeMap<MemberId, BTreeSet<(usize, bool)>>,
    /// Members about whom people decided, whether that holds or was taken back: scores leave them alone.
    of_people: HashSet<MemberId>,
}

impl Answers {
    fn new(book: &Book) -> Self {
        let in_force = book.in_force();
        let mut apart: BTreeMap<MemberId, BTreeSet<(usize, bool)>> = BTreeMap::new();
        for (number, decision) in in_force.iter().enumerate().filter(|(_, decision)| decision.kind == DecisionKind::Apart) {
            for (side, is_left) in [(&decision.left, true), (&decision.right, false)] {
                for member in side.iter().filter_map(|row| book.member_of.get(row)) {
                    apart.entry(*member).or_default().insert((number, is_left));
                }
            }
        }
        let is_of_people = |of: &&DecisionRecord| of.source != DecisionSource::Score || of.withdrawn.is_some();
        let rows = book.decisions.iter().filter(is_of_people).flat_map(|of| of.decision.records());
        let of_people = rows.filter_map(|row| book.member_of.get(&row).copied()).collect();
        Self { ties: Ties::new(book, &in_force), apart, of_people }
    }

    /// Whether two members are to be one, or to be kept apart.
    fn are_decided(&self, one: MemberId, other: MemberId) -> bool {
        let (Some(of_one), Some(of_other)) = (self.apart.get(&one), self.apart.get(&other)) else {
            return self.ties.group(one).contains(&other);
        };
        of_one.iter().any(|(number, is_left)| of_other.contains(&(*number, !is_left))) || self.ties.group(one).contains(&other)
    }
}
