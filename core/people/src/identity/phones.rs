//! Who is on a phone: one person, several, nobody, or somebody else than before.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use arrow::array::{Array, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use reunion_keys::Lookup;
use reunion_model::Reason;
use reunion_model::threads::on_all_cores;

use super::held::{Known, came_with};
use super::keys::mixed;
use super::{SharedPhone, SharedPhonePolicy};
use crate::numbering::{Keys, Numbering, number};
use crate::pull::{Chunk, RECORDS, Resolved};
use crate::table::{NONE, StateError, byte_of, moments_of, typed};

/// Phones that a thread judges, at the least, and cards that it reads.
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
        let phone = |record: &u32| resolved.rows.phone(resolved.live[*record as usize]);
        let Numbering { of, first } = number(&[Keys::Narrow(&on_all_cores(usable, PHONES_PER_THREAD_MIN, phone))]);
        let shared = Shared::new(&of, first.len());
        let cards = on_all_cores(&shared.places, PHONES_PER_THREAD_MIN, |at| hints.card(resolved, usable[*at as usize]));
        let judged = on_all_cores(&shared.phones, PHONES_PER_THREAD_MIN, |phone| {
            judge(&shared.of(phone).map(|at| cards[at]).collect::<Vec<_>>(), config)
        });
        drop(cards);
        let mut holders = Self { is_former: vec![false; first.len()], of, ..Self::default() };
        let mut turns = BTreeMap::new();
        for (phone, judgement) in shared.phones.iter().zip(judged) {
            let places = shared.of(phone).map(|at| shared.places[at]);
            match judgement {
                Judgement::OneHolder => {}
                Judgement::Nobody => places.for_each(|place| holders.set_aside(place, usable, Reason::SharedPhone, reasons)),
                Judgement::Parted(parted) => {
                    let places = places.collect::<Vec<_>>();
                    holders.part(&places, usable, &parted, reasons);
                    if parted.turns.iter().any(|turn| *turn > 0) {
                        turns.extend(places.into_iter().zip(parted.turns));
                    }
                }
            }
        }
        let of_holder =
            turns.keys().map(|place| (usable[*place as usize], holders.of[*place as usize])).filter(|(_, holder)| *holder != NONE);
        holders.handed_on = of_holder.map(|(record, holder)| (record, holders.is_former[holder as usize])).collect();
        holders.held = came_with(resolved, usable, &holders.of, &turns, known);
        holders
    }

    /// Gives the records of one phone their holders. The first holder has the phone's own number.
    fn part(&mut self, places: &[u32], usable: &[u32], parted: &Parted, reasons: &mut [u8]) {
        let phone = self.of[places[0] as usize];
        let mut numbers = vec![phone; parted.holders.len().max(1)];
        for (number, holder) in numbers.iter_mut().zip(&parted.holders).skip(1) {
            *number = self.is_former.len() as u32;
            self.is_former.push(*holder == Holder::Former);
        }
        if let Some(first) = parted.holders.first() {
            self.is_former[phone as usize] = *first == Holder::Former;
        }
        for (place, card) in places.iter().zip(&parted.cards) {
            match card {
                Ok(holder) => self.of[*place as usize] = numbers[*holder as usize],
                Err(reason) => self.set_aside(*place, usable, *reason, reasons),
            }
        }
    }

    fn set_aside(&mut self, place: u32, usable: &[u32], reason: Reason, reasons: &mut [u8]) {
        self.of[place as usize] = NONE;
        reasons[usable[place as usize] as usize] = byte_of(reason);
    }
}

/// Phones that several records have.
struct Shared {
    /// The places of those records among the usable ones, ascending: in the order in which their columns lie.
    places: Vec<u32>,
    /// Positions in `places`, those of a phone together.
    by_phone: Vec<u32>,
    /// The bounds of each phone in `by_phone`.
    phones: Vec<(u32, u32)>,
}

impl Shared {
    /// `of` has the number of each usable record's phone, which is below `phones`.
    fn new(of: &[u32], phones: usize) -> Self {
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
        let mut places = Vec::with_capacity(total as usize);
        let mut by_phone = vec![0; total as usize];
        for (at, phone) in (0_u32..).zip(of) {
            let next = &mut next[*phone as usize];
            if *next != NONE {
                by_phone[*next as usize] = places.len() as u32;
                places.push(at);
                *next += 1;
            }
        }
        Self { places, by_phone, phones: bounds }
    }

    /// Positions in `places` of the records of a phone, ascending.
    fn of(&self, (from, to): &(u32, u32)) -> impl Iterator<Item = usize> + '_ {
        self.by_phone[*from as usize..*to as usize].iter().map(|at| *at as usize)
    }
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
        let name = self.names[chunk].filter(|names| names.is_valid(at));
        let name = name.and_then(|names| NonZeroU64::new(self.lookup.row_hash(names.value(at).as_bytes()) as u64));
        let birthday = self.birthdays[chunk].filter(|days| days.is_valid(at)).map(|days| days.value(at));
        let order = self.orders[chunk].filter(|orders| orders.is_valid(at)).map(|orders| orders.value(at));
        let (created, updated) = (resolved.rows.created(row), resolved.rows.updated(row));
        let (first, last) = (created.or(order).or(updated), order.or(updated).max(created));
        Card { name, birthday, seen: first.zip(last) }
    }
}

/// What one record says about the person who holds the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Card {
    /// A hash of the name: it is compared with those of the same phone alone.
    name: Option<NonZeroU64>,
    birthday: Option<i32>,
    /// The first and last sign of life, in microseconds. A row that is written again is none where there are orders.
    seen: Option<(i64, i64)>,
}

/// Who is on a phone.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// One holder, whom all cards are of.
    OneHolder,
    /// Nobody that could be told: all cards are set aside.
    Nobody,
    /// Several, or not all cards count.
    Parted(Box<Parted>),
}

#[derive(Debug, PartialEq, Eq)]
struct Parted {
    holders: Vec<Holder>,
    /// For each card its holder, or why it is set aside.
    cards: Vec<Result<u32, Reason>>,
    /// For each card how often the phone had come to somebody else by then.
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
    let several = !is_one_person(cards);
    let one_name = !several && cards.iter().all(|card| card.name.is_some());
    let cards_max = if one_name { config.cards_max.max(config.same_name_cards_max) } else { config.cards_max };
    if cards.len() > cards_max as usize {
        return Judgement::Nobody;
    }
    let silence_us = config.recycled_after_us.filter(|silence_us| can_be_silent(cards, *silence_us));
    if !several || (silence_us.is_none() && config.policy == SharedPhonePolicy::Merge) {
        return Judgement::OneHolder;
    }
    let persons = persons(cards);
    let turns = silence_us.map_or_else(|| vec![0; cards.len()], |silence_us| turns(cards, &persons, silence_us));
    part(&persons, turns, config.policy)
}

/// Whether all cards that have a name have the same, and no two birthdays with it: [`persons`] tells nobody apart.
fn is_one_person(cards: &[Card]) -> bool {
    let mut named = cards.iter().filter(|card| card.name.is_some());
    let Some(first) = named.next() else { return true };
    let mut birthday = first.birthday;
    named.all(|card| {
        birthday = birthday.or(card.birthday);
        card.name == first.name && (card.birthday.is_none() || card.birthday == birthday)
    })
}

/// Whether there is so long a time between any two cards: without it, [`turns`] has nothing to find.
fn can_be_silent(cards: &[Card], silence_us: i64) -> bool {
    let last = cards.iter().filter_map(|card| Some(card.seen?.1)).min();
    let first = cards.iter().filter_map(|card| Some(card.seen?.0)).max();
    last.zip(first).is_some_and(|(last, first)| first.saturating_sub(last) > silence_us)
}

/// The person of each card, as far as name and birthday tell; `None` where the card has no name. Birthdays tell
/// people of one name apart.
fn persons(cards: &[Card]) -> Vec<Option<u128>> {
    let mut birthdays: BTreeMap<NonZeroU64, Vec<i32>> = BTreeMap::new();
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
        let birthday = || card.birthday.map_or(0, |day| i128::from(day).cast_unsigned() | 1 << 64);
        Some(if is_several { mixed(name.get().into(), birthday()) } else { name.get().into() })
    };
    cards.iter().map(person).collect()
}

/// How often the phone had come to somebody else, by card: it was silent for longer than `silence_us`, and
/// then somebody has it who was not there before. A card without a name changes nothing; one without any time is of
/// the last.
fn turns(cards: &[Card], persons: &[Option<u128>], silence_us: i64) -> Vec<u8> {
    // What is one person's is one stretch of time, however long; what has no name is one for itself.
    let key = |at: usize| persons[at].map_or((0, at + 1), |person| (person, 0));
    let stretch = |(at, card): (usize, &Card)| card.seen.map(|(first, last)| (key(at), first, last));
    let mut stretches = cards.iter().enumerate().filter_map(stretch).collect::<Vec<_>>();
    stretches.sort_unstable();
    stretches.dedup_by(|(key, _, last), (held_key, _, held_last)| {
        let is_same = key == held_key;
        if is_same {
            *held_last = (*held_last).max(*last);
        }
        is_same
    });
    stretches.sort_unstable_by_key(|(key, first, last)| (*first, *last, *key));
    let mut turn = 0_u8;
    let mut silent_since = None;
    let mut of = Vec::with_capacity(stretches.len());
    for (key, first, last) in stretches {
        let is_silent = silent_since.is_some_and(|since: i64| first.saturating_sub(since) > silence_us);
        if is_silent && key.1 == 0 {
            turn = turn.saturating_add(1);
        }
        silent_since = silent_since.max(Some(last));
        of.push((key, turn));
    }
    of.sort_unstable();
    let turn_of = |at: usize| of.binary_search_by_key(&key(at), |(key, _)| *key).map_or(turn, |found| of[found].1);
    (0..cards.len()).map(turn_of).collect()
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
    let cards = cards.collect::<Vec<_>>();
    if holders == [Holder::Present] && cards.iter().all(Result::is_ok) {
        return Judgement::OneHolder;
    }
    Judgement::Parted(Box::new(Parted { holders, cards, turns }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;

    fn config(policy: SharedPhonePolicy) -> SharedPhone {
        SharedPhone { cards_max: 3, same_name_cards_max: 6, recycled_after_us: Some(365 * DAY_US), policy }
    }

    fn card(name: u64, first: i64, last: i64) -> Card {
        Card { name: NonZeroU64::new(name), birthday: None, seen: Some((first * DAY_US, last * DAY_US)) }
    }

    fn judged(cards: &[Card], policy: SharedPhonePolicy) -> Vec<Result<(u32, Holder), Reason>> {
        match judge(cards, &config(policy)) {
            Judgement::OneHolder => vec![Ok((0, Present)); cards.len()],
            Judgement::Nobody => vec![Err(Reason::SharedPhone); cards.len()],
            Judgement::Parted(parted) => {
                parted.cards.into_iter().map(|card| card.map(|number| (number, parted.holders[number as usize]))).collect()
            }
        }
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
        let timeless = Card { seen: None, ..card(0, 0, 0) };
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
