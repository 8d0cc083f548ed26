//! Tests of orders: what is decided, what there is nothing to do about, and what is refused.

use reunion_ledger::Withdrawal;
use reunion_model::DecisionSource;

use super::super::book::{Person, Row};
use super::*;

fn member(number: u128) -> MemberId {
    MemberId::from_u128(number)
}

fn key(number: u128) -> RecordKey {
    RecordKey::from_u128(number)
}

/// Members 1 to 4. The rows of member `n` are `n * 10` and up, and the first of them founds it, the later the greater `n`.
fn book(rows: &[u128]) -> Book {
    let mut book = Book::default();
    for (number, rows) in (1..).zip(rows) {
        let keys = (0..*rows).map(|row| key(number * 10 + row));
        book.member_of.extend(keys.clone().map(|key| (key, member(number))));
        let row = |key: RecordKey| Row { key, source: "pos".to_owned(), record_id: format!("C{}", key.as_u128()) };
        let rows = keys.map(row).collect();
        let founded = (number as i64, key(number * 10));
        book.persons.insert(member(number), Person { id: member(number), phone: format!("139****000{number}"), name: None, founded, rows });
    }
    book
}

impl Book {
    fn decided(mut self, id: u128, kind: DecisionKind, left: &[u128], right: &[u128]) -> Self {
        let keys = |rows: &[u128]| rows.iter().map(|row| key(*row)).collect();
        self.decisions.push(DecisionRecord {
            seq: self.decisions.len() as u64 + 1,
            decision: Decision { id: DecisionId::from_u128(id), kind, left: keys(left), right: keys(right) },
            source: DecisionSource::Operator,
            weight_millibits: None,
            made_us: 0,
            made_by: "li".to_owned(),
            why: "asked".to_owned(),
            withdrawn: None,
        });
        self
    }

    fn withdrawn(mut self) -> Self {
        let last = self.decisions.last_mut().expect("a decision");
        last.withdrawn = Some(Withdrawal { seq: 9, at_us: 0, who: "li".to_owned(), why: "a mistake".to_owned() });
        self
    }

    fn same(self, id: u128, left: &[u128], right: &[u128]) -> Self {
        self.decided(id, DecisionKind::Same, left, right)
    }

    fn apart(self, id: u128, left: &[u128], right: &[u128]) -> Self {
        self.decided(id, DecisionKind::Apart, left, right)
    }
}

/// Ids 100, 101 and so on.
fn ids() -> impl FnMut() -> Result<DecisionId, Failure> {
    let mut next = 99;
    move || {
        next += 1;
        Ok(DecisionId::from_u128(next))
    }
}

/// A verdict in a few words: what is decided about which rows, and what is overtaken.
fn words(verdict: Result<Verdict, Failure>) -> String {
    match verdict {
        Err(failure) => failure.render(false),
        Ok(Verdict::Already(why)) => why,
        Ok(Verdict::New { decisions, overtaken, .. }) => {
            let side = |rows: &[RecordKey]| rows.iter().map(|row| row.as_u128().to_string()).collect::<Vec<_>>().join(" ");
            let decision = |of: &Decision| format!("{} {}: {} | {}", of.id.as_u128(), of.kind.name(), side(&of.left), side(&of.right));
            let over = |of: &Overtaken| format!("{}{}", of.decision.as_u128(), if of.in_part { " in part" } else { "" });
            let mut lines: Vec<String> = decisions.iter().map(decision).collect();
            lines.extend(overtaken.iter().map(|of| format!("overtakes {}", over(of))));
            lines.join("\n")
        }
    }
}

fn merging(book: &Book, members: &[u128]) -> String {
    let members: Vec<MemberId> = members.iter().map(|number| member(*number)).collect();
    words(merge(book, &members, &mut ids()))
}

fn keeping(book: &Book, one: u128, other: u128) -> String {
    words(keep_apart(book, member(one), member(other), &mut ids()))
}

fn splitting(book: &Book, of: u128, rows: &[u128]) -> String {
    let rows: Vec<RecordKey> = rows.iter().map(|row| key(*row)).collect();
    words(split(book, member(of), &rows, &mut ids()))
}

#[test]
fn members_are_joined_by_all_their_rows_the_founding_ones_first() {
    let book = book(&[2, 2, 1]);
    assert_eq!(merging(&book, &[1, 2]), "100 same: 10 11 | 20 21");
    assert_eq!(merging(&book, &[2, 1, 3]), "100 same: 20 21 | 10 11\n101 same: 10 20 11 21 | 30");
    let Ok(Verdict::New { sides, .. }) = merge(&book, &[member(2), member(1), member(3)], &mut ids()) else { panic!("new") };
    assert_eq!(sides, [BTreeSet::from([member(2)]), BTreeSet::from([member(1), member(3)])]);
    assert_eq!(book.by_founding(&sides[1])[0].id, member(1));
}

#[test]
fn what_is_one_already_is_not_decided_again() {
    let book = book(&[1, 1, 1]);
    insta::assert_snapshot!(merging(&book, &[1, 1]), @"they are one member already, 00000000000000000000000000000001");
    let pending = book.same(1, &[10], &[20]).same(2, &[30], &[20]);
    insta::assert_snapshot!(merging(&pending, &[1, 3]), @"they are one person already from the next run on, by decision 00000000000000000000000000000001, 00000000000000000000000000000002");
    let split = super::tests::book(&[2]).apart(7, &[10], &[11]);
    insta::assert_snapshot!(merging(&split, &[1, 1]), @"they are one member already, 00000000000000000000000000000001, until the next run takes some of its rows out by decision 00000000000000000000000000000007: `reunion members undo 00000000000000000000000000000007` keeps them");
    assert_eq!(merging(&super::tests::book(&[1, 1]).same(1, &[10], &[20]).withdrawn(), &[1, 2]), "100 same: 10 | 20");
}

#[test]
fn a_merge_overtakes_what_kept_the_two_apart() {
    let book = book(&[1, 1, 1]).apart(1, &[10], &[20, 30]);
    assert_eq!(merging(&book, &[1, 2]), "100 same: 10 | 20\novertakes 1 in part");
    assert_eq!(merging(&book, &[1, 2, 3]), "100 same: 10 | 20\n101 same: 10 20 | 30\novertakes 1");
    // Who is joined in the next run comes along, and what is said of them is looked at too.
    let book = super::tests::book(&[1, 1, 1]).same(1, &[10], &[20]).apart(2, &[20], &[30]);
    assert_eq!(merging(&book, &[1, 3]), "100 same: 10 20 | 30\novertakes 2");
}

#[test]
fn two_members_are_kept_apart_with_whoever_is_joined_to_them() {
    let book = book(&[2, 1, 1, 1]);
    assert_eq!(keeping(&book, 1, 2), "100 apart: 10 11 | 20");
    let joined = book.same(1, &[20], &[30]);
    assert_eq!(keeping(&joined, 1, 2), "100 apart: 10 11 | 20 30");
    // The latest word ends a merge that no run has made yet.
    assert_eq!(keeping(&joined, 2, 3), "100 apart: 20 | 30\novertakes 1");
    let done = joined.apart(2, &[30, 20], &[10, 11]);
    insta::assert_snapshot!(keeping(&done, 1, 2), @"they are kept apart already, by decision 00000000000000000000000000000002");
    assert_eq!(keeping(&done, 1, 4), "100 apart: 10 11 | 40");
    // A later row of theirs is not covered yet.
    let more = super::tests::book(&[3, 1]).apart(2, &[20], &[10, 11]);
    assert_eq!(keeping(&more, 1, 2), "100 apart: 10 11 12 | 20");
}

#[test]
fn who_cannot_be_kept_apart_is_told_why() {
    insta::assert_snapshot!(keeping(&book(&[2]), 1, 1), @r"
    error: they are one member, 00000000000000000000000000000001
      help: to take some of its rows out: `reunion members split 00000000000000000000000000000001 --records SOURCE/RECORD_ID`; its rows are pos/C10, pos/C11
    ");
    let chained = book(&[1, 1, 1]).same(1, &[10], &[30]).same(2, &[30], &[20]);
    insta::assert_snapshot!(keeping(&chained, 1, 2), @r"
    error: both are decided to be one person with somebody else, who cannot be with each of them
      help: withdraw one of these first: 00000000000000000000000000000001, 00000000000000000000000000000002; `reunion members decisions` says what they are
    ");
}

#[test]
fn rows_are_split_off_and_the_rest_stays_together() {
    let book = book(&[3, 1]);
    assert_eq!(splitting(&book, 1, &[11]), "100 apart: 11 | 10 12");
    assert_eq!(splitting(&book, 1, &[10, 12]), "100 apart: 10 12 | 11");
    insta::assert_snapshot!(splitting(&book, 1, &[10, 11, 12]), @r"
    error: these are all 3 rows of member 00000000000000000000000000000001
      help: a split leaves some of them where they are
    ");
    // What was merged and is split again: the merge holds for the rest.
    let merged = book.same(1, &[10, 11], &[12]);
    assert_eq!(splitting(&merged, 1, &[12]), "100 apart: 12 | 10 11\novertakes 1");
    assert_eq!(splitting(&merged, 1, &[11]), "100 apart: 11 | 10 12\novertakes 1 in part");
    // Who joins in the next run stays with the rest.
    let joining = super::tests::book(&[2, 1]).same(1, &[10, 11], &[20]);
    assert_eq!(splitting(&joining, 1, &[11]), "100 apart: 11 | 10 20\novertakes 1 in part");
    let done = joining.apart(2, &[11], &[10, 20]);
    insta::assert_snapshot!(splitting(&done, 1, &[11]), @"they are taken apart already from the next run on, by decision 00000000000000000000000000000002");
}

#[test]
fn a_withdrawal_gives_back_what_was_overtaken() {
    let book = book(&[1, 1, 1]).same(1, &[10], &[20]).apart(2, &[10], &[20]);
    let (record, again) = undo(&book, DecisionId::from_u128(2)).expect("a decision");
    assert_eq!(record.seq, 2);
    assert_eq!(again, [Overtaken { decision: DecisionId::from_u128(1), in_part: false }]);
    let (_, again) = undo(&book, DecisionId::from_u128(1)).expect("a decision");
    assert_eq!(again, []);
    let failure = undo(&book, DecisionId::from_u128(9)).expect_err("no such decision");
    insta::assert_snapshot!(failure.render(false), @r"
    error: there is no decision 00000000000000000000000000000009
      help: `reunion members decisions` lists them
    ");
}

#[test]
fn nobody_has_a_thousand_cards() {
    let book = book(&[9, 9]);
    let mut huge = book.clone();
    let rows = (0..DECISION_RECORDS_MAX as u128).map(|row| Row { key: key(1_000 + row), source: "pos".into(), record_id: row.to_string() });
    huge.persons.get_mut(&member(2)).expect("a member").rows = rows.collect();
    insta::assert_snapshot!(merging(&huge, &[1, 2]), @r"
    error: the members have 1009 rows together, and a decision names at most 1000
      help: nobody has so many cards: see with `reunion explain` what they are
    ");
}

#[test]
fn lists_are_short() {
    assert_eq!(list((0..3).map(|number| number.to_string())), "0, 1, 2");
    assert_eq!(list((0..20).map(|number| number.to_string())), "0, 1, 2, 3, 4, 5, 6, 7, and 12 more");
    assert_eq!((count(1, "row"), count(2, "row")), ("1 row".to_owned(), "2 rows".to_owned()));
}
