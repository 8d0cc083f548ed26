//! What the head and the ledger know of the members that an order is about, and of every decision.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use reunion_ledger::DecisionRecord;
use reunion_model::decision::{Standing, standings};
use reunion_model::phone::mask;
use reunion_model::schema::MEMBER_ID;
use reunion_model::{Decision, DecisionKind, MemberId, RecordKey};
use reunion_people::PhoneRules;

use crate::failure::Failure;
use crate::run::phones;

use super::super::view::{View, is_in, shown_id};

/// A row as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: RecordKey,
    /// Its source, by the name that the config has for it.
    pub source: String,
    /// Its id there, masked where it is a phone number.
    pub record_id: String,
}

/// A member, and what may be shown of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Its id.
    pub id: MemberId,
    /// Its phone, masked.
    pub phone: String,
    /// Its name, masked.
    pub name: Option<String>,
    /// When it was founded, and by which row: the order in which of several the first keeps its id.
    pub founded: (i64, RecordKey),
    /// Its rows, the founding one first.
    pub rows: Vec<Row>,
}

/// Members, the rows of decisions, and the decisions.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// The members that the order is about, and those that decisions join to them in the next run.
    pub persons: BTreeMap<MemberId, Person>,
    /// The members that rows of decisions are of, as the head has it.
    pub member_of: HashMap<RecordKey, MemberId>,
    /// Every decision that was ever made, oldest first.
    pub decisions: Vec<DecisionRecord>,
}

impl Book {
    /// Every decision, and nobody yet.
    ///
    /// # Errors
    /// Where the ledger does not answer, or files cannot be read.
    pub fn open(view: &View<'_>) -> Result<Self, Failure> {
        let decisions = view.state.ask(view.state.ledger.decisions())?;
        let rows: HashSet<[u8; 16]> = decisions.iter().flat_map(|of| of.decision.records()).map(|key| key.0).collect();
        let member_of = if rows.is_empty() { HashMap::new() } else { view.members_of(&rows)? };
        Ok(Self { persons: BTreeMap::new(), member_of, decisions })
    }

    /// With these members, and whoever decisions join to them.
    ///
    /// # Errors
    /// Where files cannot be read.
    pub fn with(mut self, view: &View<'_>, rules: &PhoneRules, members: &[MemberId]) -> Result<Self, Failure> {
        let ties = Ties::new(&self, &self.in_force());
        let wanted: HashSet<[u8; 16]> = members.iter().flat_map(|member| ties.group(*member)).map(|member| member.0).collect();
        let member_of = view.keys_of(&wanted)?;
        let names = view.names_of(&member_of.keys().map(|key| key.0).collect())?;
        let mut persons = persons(view, &wanted)?;
        for (key, member) in &member_of {
            let (Some(person), Some((source, id))) = (persons.get_mut(member), names.get(key)) else { continue };
            person.rows.push(Row { key: *key, source: source.clone(), record_id: shown_id(rules, id) });
        }
        for person in persons.values_mut() {
            let founding = person.founded.1;
            person.rows.sort_by(|a, b| (a.key != founding, &a.source, &a.record_id).cmp(&(b.key != founding, &b.source, &b.record_id)));
        }
        self.persons = persons;
        self.member_of.extend(member_of);
        Ok(self)
    }

    /// The decisions that were not withdrawn, oldest first.
    pub fn standing(&self) -> Vec<Decision> {
        self.decisions.iter().filter(|of| of.withdrawn.is_none()).map(|of| of.decision.clone()).collect()
    }

    /// What holds of them.
    pub fn in_force(&self) -> Vec<Decision> {
        reunion_model::decision::in_force(&self.standing())
    }

    /// What is left of each decision: of one that was withdrawn, nothing.
    pub fn standings(&self) -> Vec<Standing> {
        let mut left = standings(&self.standing()).into_iter();
        self.decisions.iter().map(|of| if of.withdrawn.is_none() { left.next().unwrap_or_default() } else { Standing::default() }).collect()
    }

    /// A member that [`Book::with`] was asked for.
    pub fn person(&self, member: MemberId) -> &Person {
        &self.persons[&member]
    }

    /// Members in the order in which they were founded.
    pub fn by_founding(&self, members: &BTreeSet<MemberId>) -> Vec<&Person> {
        let mut persons: Vec<&Person> = members.iter().filter_map(|member| self.persons.get(member)).collect();
        persons.sort_by_key(|person| person.founded);
        persons
    }

    /// The keys of members' rows, those that found them first.
    pub fn keys(&self, members: &BTreeSet<MemberId>) -> Vec<RecordKey> {
        let persons = self.by_founding(members);
        let founding = persons.iter().filter_map(|person| person.rows.first());
        let others = persons.iter().flat_map(|person| person.rows.iter().skip(1));
        founding.chain(others).map(|row| row.key).collect()
    }
}

/// The members of these ids, without their rows.
fn persons(view: &View<'_>, wanted: &HashSet<[u8; 16]>) -> Result<BTreeMap<MemberId, Person>, Failure> {
    let mut persons = BTreeMap::new();
    let Some(batch) = view.rows_where("members", |rows| is_in(rows, MEMBER_ID, wanted))? else { return Ok(persons) };
    let founding = batch.column_by_name("founding").expect("members have founding rows").as_fixed_size_binary();
    let founded_at = batch.column_by_name("founded_at").expect("and their time").as_primitive::<TimestampMicrosecondType>();
    let names = batch.column_by_name("name").and_then(|names| names.as_string_opt::<i32>());
    for (row, (id, mut phones)) in phones(&batch).enumerate() {
        let at = if founded_at.is_valid(row) { founded_at.value(row) } else { i64::MAX };
        let name = names.filter(|names| names.is_valid(row)).map(|names| mask(names.value(row)));
        let person = Person {
            id,
            phone: phones.next().map_or_else(String::new, |phone| phone.to_string()),
            name,
            founded: (at, RecordKey::from_slice(founding.value(row)).unwrap_or_default()),
            rows: Vec::new(),
        };
        persons.insert(id, person);
    }
    Ok(persons)
}

/// Which members decisions make one person, as the next run will have it.
#[derive(Debug, Default)]
pub struct Ties {
    /// Each with the decision that ties the two.
    of: BTreeMap<MemberId, Vec<(MemberId, Decision)>>,
}

impl Ties {
    /// What these decisions say.
    pub fn new(book: &Book, in_force: &[Decision]) -> Self {
        let mut ties = Self::default();
        for decision in in_force.iter().filter(|decision| decision.kind == DecisionKind::Same) {
            let first = |side: &[RecordKey]| side.iter().find_map(|key| book.member_of.get(key)).copied();
            if let (Some(one), Some(other)) = (first(&decision.left), first(&decision.right))
                && one != other
            {
                ties.of.entry(one).or_default().push((other, decision.clone()));
                ties.of.entry(other).or_default().push((one, decision.clone()));
            }
        }
        ties
    }

    /// A member and all that become one with it.
    pub fn group(&self, member: MemberId) -> BTreeSet<MemberId> {
        let mut group = BTreeSet::from([member]);
        let mut next = vec![member];
        while let Some(at) = next.pop() {
            for (other, _) in self.of.get(&at).into_iter().flatten() {
                if group.insert(*other) {
                    next.push(*other);
                }
            }
        }
        group
    }

    /// The decisions that tie members of a group, each once, in their order.
    pub fn within(&self, group: &BTreeSet<MemberId>) -> Vec<&Decision> {
        let ties = group.iter().filter_map(|member| self.of.get(member)).flatten();
        let mut found: Vec<&Decision> = Vec::new();
        for (_, decision) in ties {
            if found.iter().all(|known| known.id != decision.id) {
                found.push(decision);
            }
        }
        found
    }
}
