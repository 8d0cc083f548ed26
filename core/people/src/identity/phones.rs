//! Who is on a phone: one person, several, nobody, or somebody else than before.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use reunion_keys::Lookup;
use reunion_model::Reason;
use reunion_model::threads::on_all_cores;

use super::held::{Known, came_with};
use super::keys::mixed;
use super::{SharedPhone, SharedPhonePolicy};
use crate::numbering::{Numbering, number};
use crate::pull::{Chunk, RECORDS, Resolved};
use crate::table::{NONE, StateError, byte_of, moments_of, typed};

/// Phones that a thread judges, at the least.
const PHONES_PER_THREAD_MIN: usize = 1024;

/// The holders of the phones of usable records: each phone has one, or several.
#[derive(Default)]
pub(super) struct Holders {
    /// The holder of each usable record; `NONE` where the record was set aside.
    pub(super) of: Vec<u32>,
    /// For each holder whether the phone is somebody else's now.
    pub(super) is_former: Vec<bool>,
    /// Records of phones that have had several holders, and with which record the phone came to theirs.
    pub(super) held: Vec<(u32, Option<u128>)>,
    /// Records of phones that have had several holders, and whether the phone is somebody else's now.
    pub(super) handed_on: Vec<(u32, bool)>,
}

impl Holders {
    /// Decides who is on each phone, and sets records aside whose phone is nobody's.
    pub(super) fn new(resolved: &Resolved, hints: &Hints, config: &SharedPhone, usable: &[u32], known: &Known, reasons: &mut [u8]) -> Self {
        let phone = |record: &u32| u128::from(resolved.rows.phones[resolved.live[*record as usize] as usize]);
        let Numbering { of, first } = number(&[&usable.iter().map(phone).collect::<Vec<_>>()]);
        let (starts, places) = shared(&of, first.len());
        let judged = on_all_cores(&starts, PHONES_PER_THREAD_MIN, |(from, to)| {
            let cards = places[*from as usize..*to as usize].iter().map(|at| hints.card(resolved, usable[*at as usize]));
            judge(&cards.collect::<Vec<_>>(), config)
        });
        let mut holders = Self { is_former: vec![false; first.len()], of, ..Self::default() };
        let mut turns = BTreeMap::new();
        for ((from, to), judgement) in starts.into_iter().zip(judged) {
            let places = &places[from as usize..to as usize];
            holders.apply(places, usable, &judgement, reasons);
            if judgement.turns.iter().any(|turn| *turn > 0) {
                turns.extend(places.iter().copied().zip(judgement.turns));
            }
        }
        let of_holder =
            turns.keys().map(|place| (usable[*place as usize], holders.of[*place as usize])).filter(|(_, holder)| *holder != NONE);
        holders.handed_on = of_holder.map(|(record, holder)| (record, holders.is_former[holder as usize])).collect();
        holders.held = came_with(resolved, usable, &holders.of, &turns, known);
        holders
    }

    /// Gives the records of one phone their holders. The first holder has the phone's own number.
    fn apply(&mut self, places: &[u32], usable: &[u32], judgement: &Judgement, reasons: &mut [u8]) {
        let phone = self.of[places[0] as usize];
        let mut numbers = vec![phone; judgement.holders.len().max(1)];
        for (number, holder) in numbers.iter_mut().zip(&judgement.holders).skip(1) {
            *number = self.is_former.len() as u32;
            self.is_former.push(*holder == Holder::Former);
        }
        if let Some(first) = judgement.holders.first() {
            self.is_former[phone as usize] = *first == Holder::Former;
        }
        for (at, card) in places.iter().zip(&judgement.cards) {
            match card {
                Ok(holder) => self.of[*at as usize] = numbers[*holder as usize],
                Err(reason) => {
                    self.of[*at as usize] = NONE;
                    reasons[usable[*at as usize] as usize] = byte_of(*reason);
                }
            }
        }
    }
}

/// The places of records whose phone has several, phone by phone: the bounds of each phone, and the places.
fn shared(of: &[u32], phones: usize) -> (Vec<(u32, u32)>, Vec<u32>) {
    let mut cards = vec![0_u32; phones];
    of.iter().for_each(|phone| cards[*phone as usize] += 1);
    let mut bounds = Vec::new();
    let mut next = vec![NONE; phones];
    let mut total = 0;
    for (phone, cards) in cards.iter().enumerate().filter(|(_, cards)| **cards > 1) {
        next[phone] = total;
        bounds.push((total, total + cards));
        total += cards;
    }
    let mut places = vec![0; total as usize];
    for (at, phone) in (0_u32..).zip(of) {
        let next = &mut next[*phone as usize];
        if *next != NONE {
            places[*next as usize] = at;
            *next += 1;
        }
    }
    (bounds, places)
}

/// The columns that tell people on one phone apart. By chunk; `None` where the chunk lacks the column.
pub(super) struct Hints<'a> {
    names: Vec<Option<&'a StringArray>>,
    birthdays: Vec<Option<&'a PrimitiveArray<Date32Type>>>,
    orders: Vec<Option<&'a PrimitiveArray<TimestampMicrosecondType>>>,
    lookup: &'a Lookup,
}

impl<'a> Hints<'a> {
    /// Their names beside the key columns.
    pub(super) const COLUMNS: [&'static str; 3] = ["name", "birthday", "last_order_at"];

    pub(super) fn new(chunks: &'a [Chunk], lookup: &'a Lookup) -> Result<Self, StateError> {
        let mut hints = Self { names: Vec::new(), birthdays: Vec::new(), orders: Vec::new(), lookup };
        for Chunk { batch, .. } in chunks {
            let column = |name: &str, kind: reunion_model::schema::ColumnType| match batch.column_by_name(name) {
                None => Ok(None),
                Some(_) => typed(batch, RECORDS, name, &kind.arrow()).map(Some),
            };
            hints.names.push(column("name", reunion_model::schema::ColumnType::Text)?.map(AsArray::as_string));
            hints.birthdays.push(column("birthday", reunion_model::schema::ColumnType::Date)?.map(AsArray::as_primitive));
            hints.orders.push(moments_of(batch, RECORDS, "last_order_at")?);
        }
        Ok(hints)
    }

    fn card(&self, resolved: &Resolved, record: u32) -> Card {
        let row = resolved.live[record as usize];
        let (chunk, at) = resolved.rows.locate(row);
        let name = self.names[chunk].filter(|names| names.is_valid(at)).map(|names| self.lookup.row_hash(names.value(at).as_bytes()));
        let birthday = self.birthdays[chunk].filter(|days| days.is_valid(at)).map(|days| days.value(at));
        let order = self.orders[chunk].filter(|orders| orders.is_valid(at)).map(|orders| orders.value(at));
        let created = Some(resolved.rows.created[row as usize]).filter(|created| *created != i64::MAX);
        let updated = Some(resolved.rows.updated[row as usize]).filter(|updated| *updated != i64::MIN);
        Card { name, birthday, first: created.or(order).or(updated), last: order.or(updated).max(created) }
    }
}

/// What one record says about the person who holds the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Card {
    name: Option<u128>,
    birthday: Option<i32>,
    /// The first and last sign of life, in microseconds. A row that is written again is none where there are orders.
    first: Option<i64>,
    last: Option<i64>,
}

/// Who is on a phone.
#[derive(Debug, PartialEq, Eq)]
struct Judgement {
    holders: Vec<Holder>,
    /// For each card its holder, or why it is set aside.
    cards: Vec<Result<u32, Reason>>,
    /// For each card how often the phone had come to somebody else by then; empty where it never did.
    turns: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Has the phone.
    Present,
    /// Had it, and somebody else has it now.
    Former,
}

fn judge(cards: &[Card], config: &SharedPhone) -> Judgement {
    let persons = persons(cards);
    let several = persons.iter().flatten().any(|person| Some(*person) != persons.iter().flatten().next().copied());
    let one_name = !several && persons.iter().all(Option::is_some);
    let cards_max = if one_name { config.cards_max.max(config.same_name_cards_max) } else { config.cards_max };
    if cards.len() > cards_max as usize {
        return Judgement { holders: Vec::new(), cards: vec![Err(Reason::SharedPhone); cards.len()], turns: Vec::new() };
    }
    if !several {
        return Judgement { holders: vec![Holder::Present], cards: vec![Ok(0); cards.len()], turns: Vec::new() };
    }
    let turns = turns(cards, &persons, config.recycled_after_us);
    part(&persons, turns, config.policy)
}

/// The person of each card, as far as name and birthday tell; `None` where the card has no name. Birthdays tell
/// people of one name apart.
fn persons(cards: &[Card]) -> Vec<Option<u128>> {
    let mut birthdays: BTreeMap<u128, Vec<i32>> = BTreeMap::new();
    for card in cards {
        if let (Some(name), Some(birthday)) = (card.name, card.birthday) {
            let known = birthdays.entry(name).or_default();
            if !known.contains(&birthday) {
                known.push(birthday);
            }
        }
    }
    let person = |card: &Card| {
        let name = card.name?;
        let is_several = birthdays.get(&name).is_some_and(|known| known.len() > 1);
        Some(if is_several { mixed(name, card.birthday.map_or(0, |day| i128::from(day).cast_unsigned() | 1 << 64)) } else { name })
    };
    cards.iter().map(person).collect()
}

/// How often the phone had come to somebody else, by card: it was silent for longer than `recycled_after_us`, and
/// then somebody has it who was not there before. A card without a name changes nothing; one without any time is of
/// the last.
fn turns(cards: &[Card], persons: &[Option<u128>], recycled_after_us: Option<i64>) -> Vec<u8> {
    let Some(silence_us) = recycled_after_us else { return vec![0; cards.len()] };
    // What is one person's is one stretch of time, however long; what has no name is one for itself.
    let mut stretches: BTreeMap<(u128, usize), (i64, i64)> = BTreeMap::new();
    let key = |at: usize| persons[at].map_or((0, at + 1), |person| (person, 0));
    for (at, card) in cards.iter().enumerate() {
        let (Some(first), Some(last)) = (card.first, card.last) else { continue };
        let stretch = stretches.entry(key(at)).or_insert((first, last));
        *stretch = (stretch.0.min(first), stretch.1.max(last));
    }
    let mut order = stretches.iter().map(|(key, stretch)| (*stretch, *key)).collect::<Vec<_>>();
    order.sort_unstable_by_key(|((first, last), key)| (*first, *last, *key));
    let mut turn = 0_u8;
    let mut silent_since = None;
    let mut of = BTreeMap::new();
    for ((first, last), key) in order {
        let is_silent = silent_since.is_some_and(|since: i64| first.saturating_sub(since) > silence_us);
        if is_silent && key.1 == 0 {
            turn = turn.saturating_add(1);
        }
        silent_since = silent_since.max(Some(last));
        of.insert(key, turn);
    }
    (0..cards.len()).map(|at| of.get(&key(at)).copied().unwrap_or(turn)).collect()
}

/// Parts the cards of a phone by turn, and within a turn as the policy says.
fn part(persons: &[Option<u128>], turns: Vec<u8>, policy: SharedPhonePolicy) -> Judgement {
    let last = turns.iter().copied().max().unwrap_or_default();
    let of_turn = |turn: u8| {
        let mut names = (0..persons.len()).filter(|at| turns[*at] == turn).filter_map(|at| persons[at]).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        names
    };
    let names = (0..=last).map(of_turn).collect::<Vec<_>>();
    let mut numbers = BTreeMap::new();
    let mut holders = Vec::new();
    let cards = persons.iter().zip(&turns).map(|(person, turn)| {
        let several = names[usize::from(*turn)].len() > 1;
        if several && policy == SharedPhonePolicy::Quarantine {
            return Err(Reason::SharedPhoneNames);
        }
        let apart = several && policy == SharedPhonePolicy::Household;
        let key = (*turn, person.filter(|_| apart));
        Ok(*numbers.entry(key).or_insert_with(|| {
            holders.push(if *turn < last { Holder::Former } else { Holder::Present });
            holders.len() as u32 - 1
        }))
    });
    let cards = cards.collect();
    Judgement { holders, cards, turns }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;

    fn config(policy: SharedPhonePolicy) -> SharedPhone {
        SharedPhone { cards_max: 3, same_name_cards_max: 6, recycled_after_us: Some(365 * DAY_US), policy }
    }

    fn card(name: u128, first: i64, last: i64) -> Card {
        Card { name: Some(name).filter(|name| *name > 0), birthday: None, first: Some(first * DAY_US), last: Some(last * DAY_US) }
    }

    fn judged(cards: &[Card], policy: SharedPhonePolicy) -> Vec<Result<(u32, Holder), Reason>> {
        let Judgement { holders, cards, .. } = judge(cards, &config(policy));
        cards.into_iter().map(|card| card.map(|number| (number, holders[number as usize]))).collect()
    }

    use Holder::{Former, Present};
    use SharedPhonePolicy::{Household, Merge, Quarantine};

    #[test]
    fn many_cards_are_one_persons_where_all_have_one_name() {
        let same = vec![card(7, 0, 10); 6];
        assert_eq!(judged(&same, Merge), vec![Ok((0, Present)); 6]);
        for other in [card(8, 0, 10), card(0, 0, 10), card(7, 0, 10)] {
            let mut cards = same.clone();
            cards.push(other);
            assert_eq!(judged(&cards, Merge), vec![Err(Reason::SharedPhone); 7], "{other:?}");
        }
        let born = |day| Card { birthday: Some(day), ..card(7, 0, 10) };
        assert_eq!(judged(&[born(1), born(1), born(2), born(1)], Merge), vec![Err(Reason::SharedPhone); 4]);
        assert_eq!(judged(&[born(1), born(1), card(7, 0, 10), born(1)], Merge), vec![Ok((0, Present)); 4]);
    }

    #[test]
    fn a_phone_goes_to_somebody_else_after_silence_and_only_then() {
        let (old, soon, late) = (card(1, 0, 100), card(2, 465, 500), card(2, 466, 500));
        assert_eq!(judged(&[old, soon], Merge), [Ok((0, Present)), Ok((0, Present))]);
        assert_eq!(judged(&[late, old], Merge), [Ok((0, Present)), Ok((1, Former))]);
        assert_eq!(judged(&[old, late], Quarantine), [Ok((0, Former)), Ok((1, Present))]);
        // The old name comes back: the number was not given away.
        assert_eq!(judged(&[old, late, card(1, 700, 700)], Merge), vec![Ok((0, Present)); 3]);
        // A row without a name neither takes the number over nor keeps it silent.
        assert_eq!(judged(&[old, card(0, 600, 600)], Merge), vec![Ok((0, Present)); 2]);
        assert_eq!(judged(&[old, card(0, 300, 300), late], Merge), vec![Ok((0, Present)); 3]);
        // Without any time a card is of who has the number now.
        let timeless = Card { first: None, last: None, ..card(0, 0, 0) };
        assert_eq!(judged(&[old, late, timeless], Merge), [Ok((0, Former)), Ok((1, Present)), Ok((1, Present))]);
    }

    #[test]
    fn a_household_is_parted_by_name_and_a_name_by_birthday() {
        let born = |name, day| Card { birthday: Some(day), ..card(name, 0, 10) };
        assert_eq!(
            judged(&[card(1, 0, 9), card(2, 0, 9), card(0, 0, 9)], Household),
            [Ok((0, Present)), Ok((1, Present)), Ok((2, Present))]
        );
        assert_eq!(judged(&[card(1, 0, 9), card(0, 0, 9)], Household), vec![Ok((0, Present)); 2]);
        assert_eq!(judged(&[born(1, 5), born(1, 6)], Household), [Ok((0, Present)), Ok((1, Present))]);
        assert_eq!(judged(&[born(1, 5), card(1, 0, 9)], Household), vec![Ok((0, Present)); 2]);
        assert_eq!(judged(&[born(1, 5), born(1, 6)], Merge), vec![Ok((0, Present)); 2]);
        assert_eq!(judged(&[card(1, 0, 9), card(2, 0, 9)], Quarantine), vec![Err(Reason::SharedPhoneNames); 2]);
    }
}
