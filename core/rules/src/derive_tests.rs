use arrow::array::UInt64Array;
use arrow::datatypes::Field;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

static UTC: TimeZone = TimeZone::UTC;
const CLOCK: &str = "2026-11-21T04:00:00Z";

#[derive(Debug, Clone, Default)]
struct Member {
    phone: Option<u64>,
    store: Option<String>,
    first: Option<i64>,
    last: Option<i64>,
    orders: Option<i64>,
    spent: Option<i64>,
}

fn us(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a time").as_microsecond()
}

fn days_ago(days: i64) -> i64 {
    us(CLOCK) - days * 86_400_000_000
}

fn id(number: usize) -> MemberId {
    MemberId::from_u128(number as u128)
}

fn batch(first: usize, members: &[Member]) -> RecordBatch {
    let ids: Vec<[u8; 16]> = (first..first + members.len()).map(|number| id(number).0).collect();
    let moments = |value: fn(&Member) -> Option<i64>| {
        Arc::new(members.iter().map(value).collect::<TimestampMicrosecondArray>().with_timezone("UTC")) as ArrayRef
    };
    let spent = Decimal128Array::from_iter(members.iter().map(|m| m.spent.map(i128::from))).with_precision_and_scale(18, 2);
    let columns: Vec<(&str, ArrayRef)> = vec![
        (MEMBER_ID, Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids.iter().map(Some), 16).expect("ids"))),
        (PHONE, Arc::new(members.iter().map(|m| m.phone).collect::<UInt64Array>())),
        ("store", Arc::new(members.iter().map(|m| m.store.as_deref()).collect::<StringArray>())),
        ("first_order_at", moments(|m| m.first)),
        ("last_order_at", moments(|m| m.last)),
        ("order_count", Arc::new(members.iter().map(|m| m.orders).collect::<Int64Array>())),
        ("total_spent", Arc::new(spent.expect("a decimal"))),
    ];
    let schema = Schema::new(columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|column| column.1).collect()).expect("a batch")
}

fn derived(batches: &[RecordBatch]) -> RecordBatch {
    let timezone = TimeZone::get("Asia/Shanghai").expect("a timezone");
    let how = Derivation { clock_us: us(CLOCK), timezone: &timezone, linked: &LinkedMembers::default(), wanted: None };
    let batches = derive(batches, &how).expect("derived columns");
    arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

fn numbers(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch.column_by_name(column).expect("the column").as_primitive::<Int64Type>().iter().collect()
}

fn words<'a>(batch: &'a RecordBatch, column: &str) -> Vec<Option<&'a str>> {
    batch.column_by_name(column).expect("the column").as_string::<i32>().iter().collect()
}

fn spent(amounts: &[i64]) -> Vec<Member> {
    amounts.iter().map(|amount| Member { orders: Some(1), spent: Some(*amount), ..Member::default() }).collect()
}

#[test]
fn every_derived_column_is_there_with_its_type() {
    let batch = derived(&[batch(0, &spent(&[1]))]);
    for column in DERIVED.iter().filter(|column| column.name != RECORD_COUNT) {
        let field = batch.schema_ref().field_with_name(column.name).expect("the column").clone();
        assert_eq!(field.data_type(), &column.kind.arrow(), "{}", column.name);
    }
    let columns = rule_schema([("store", ColumnType::Text)]);
    for name in DERIVED.iter().map(|column| column.name).chain(["store", MEMBER_ID, PHONE]) {
        assert_eq!(columns.fields().iter().filter(|field| field.name() == name).count(), 1, "{name}");
    }
}

#[test]
fn quintiles_cut_ten_members_in_five_pairs() {
    let batch = derived(&[batch(0, &spent(&[100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]))]);
    assert_eq!(numbers(&batch, "rfm_m"), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5].map(Some));
}

#[test]
fn equal_values_share_the_higher_score() {
    let scores =
        |amounts: &[i64]| numbers(&derived(&[batch(0, &spent(amounts))]), "rfm_m").into_iter().map(Option::unwrap).collect::<Vec<_>>();
    assert_eq!(scores(&[7]), [5], "a single member");
    assert_eq!(scores(&[7, 7, 7, 7]), [5, 5, 5, 5], "all equal");
    assert_eq!(scores(&[1, 2]), [3, 5], "fewer than five values");
    assert_eq!(scores(&[1, 1, 1, 9]), [4, 4, 4, 5]);
    assert_eq!(scores(&[1, 2, 3]), [2, 4, 5]);
    assert_eq!(scores(&[5, 4, 3, 2, 1]), [5, 4, 3, 2, 1], "in any order");
}

#[test]
fn members_without_an_order_have_no_score_and_take_no_place() {
    let mut members = spent(&[100, 200, 300, 400, 500]);
    members.extend([
        Member { orders: Some(0), spent: Some(9_999), last: Some(days_ago(1)), ..Member::default() },
        Member { spent: Some(0), ..Member::default() },
        Member { orders: Some(3), ..Member::default() },
    ]);
    let batch = derived(&[batch(0, &members)]);
    assert_eq!(numbers(&batch, "rfm_m"), [Some(1), Some(2), Some(3), Some(4), Some(5), None, None, None]);
    assert_eq!(numbers(&batch, "rfm_r"), [None; 8]);
    assert_eq!(numbers(&batch, "rfm_f"), [Some(1), Some(1), Some(1), Some(1), Some(1), None, None, Some(3)]);
}

#[test]
fn frequency_has_fixed_edges() {
    let members: Vec<Member> = [1, 2, 3, 4, 5, 7, 8, 900, 0, -2].map(|n| Member { orders: Some(n), ..Member::default() }).into();
    let expected = [Some(1), Some(2), Some(3), Some(3), Some(4), Some(4), Some(5), Some(5), None, None];
    assert_eq!(numbers(&derived(&[batch(0, &members)]), "rfm_f"), expected);
}

#[test]
fn all_eight_segments_have_their_names() {
    let named = |r, f, m| segment_name(r, f, m);
    assert_eq!([named(4, 3, 4), named(5, 2, 4), named(3, 3, 5), named(3, 2, 4)], ["champion", "potential", "must_keep", "must_win_back"]);
    assert_eq!([named(4, 3, 3), named(5, 2, 3), named(3, 3, 3), named(3, 2, 3)], ["loyal", "promising", "regular", "hibernating"]);
    let doc = DERIVED.iter().find(|column| column.name == "rfm_segment").expect("the column").doc;
    for (r, f, m) in (0..8).map(|bits| (3 + (bits & 1), 2 + (bits >> 1 & 1), 3 + (bits >> 2 & 1))) {
        assert!(doc.contains(&format!("{} (", named(r, f, m))), "the reference names each");
    }
}

#[test]
fn an_order_in_the_future_counts_as_today() {
    let members =
        [days_ago(-4000), days_ago(0), days_ago(10), i64::MAX, i64::MIN].map(|last| Member { last: Some(last), ..Member::default() });
    let batch = derived(&[batch(0, &members)]);
    let days = numbers(&batch, "days_since_last_order");
    assert_eq!(days[..4], [Some(0), Some(0), Some(10), Some(0)]);
    assert_eq!(numbers(&batch, "rfm_r"), [Some(5), Some(5), Some(2), Some(5), Some(1)]);
}

#[test]
fn days_are_cut_in_the_timezone() {
    // The clock is noon in Shanghai. 15:59 and 16:01 UTC of the day before lie on two days there.
    let members = ["2026-11-20T15:59:59Z", "2026-11-20T16:00:00Z"].map(|last| Member { last: Some(us(last)), ..Member::default() });
    let batch = batch(0, &members);
    assert_eq!(numbers(&derived(std::slice::from_ref(&batch)), "days_since_last_order"), [Some(1), Some(0)]);
    let how = Derivation { clock_us: us(CLOCK), timezone: &TimeZone::UTC, linked: &LinkedMembers::default(), wanted: None };
    assert_eq!(numbers(&derive(&[batch], &how).expect("derived")[0], "days_since_last_order"), [Some(1), Some(1)]);
}

#[test]
fn lifecycle_follows_the_days_since_the_first_and_the_last_order() {
    let ages = [(Some(30), Some(5)), (Some(31), Some(5)), (Some(900), Some(90)), (None, Some(91)), (None, Some(180))];
    let later = [(None, Some(181)), (None, Some(365)), (None, Some(366)), (None, None), (Some(40), None)];
    let members: Vec<Member> = ages
        .iter()
        .chain(&later)
        .map(|(first, last)| Member { first: first.map(days_ago), last: last.map(days_ago), ..Member::default() })
        .collect();
    let expected = ["new", "active", "active", "cooling", "cooling", "dormant", "dormant", "lost", "prospect"];
    let batch = derived(&[batch(0, &members)]);
    let stages = words(&batch, "lifecycle");
    assert_eq!(stages[..9], expected.map(Some));
    assert_eq!(stages[9], None, "an order whose last date is not known");
}

#[test]
fn ranks_run_in_each_store_and_equal_amounts_share_one() {
    let rows = [("S1", Some(500)), ("S2", Some(10)), ("S1", Some(900)), ("S1", Some(500)), ("S1", Some(1)), ("S2", None), ("", Some(3))];
    let members: Vec<Member> = rows
        .iter()
        .map(|(store, spent)| Member {
            store: Some((*store).to_owned()).filter(|store| !store.is_empty()),
            spent: *spent,
            ..Member::default()
        })
        .collect();
    let expected = [Some(2), Some(1), Some(1), Some(2), Some(4), None, None];
    assert_eq!(numbers(&derived(&[batch(0, &members)]), "store_rank_by_spent"), expected);
}

#[test]
fn phone_only_needs_a_phone_and_no_link() {
    let members = [Some(8613800138000), Some(8613900001200), None].map(|phone| Member { phone, ..Member::default() });
    let linked = LinkedMembers::from_iter([id(1)]);
    let how = Derivation { clock_us: 0, timezone: &TimeZone::UTC, linked: &linked, wanted: None };
    let batches = derive(&[batch(0, &members)], &how).expect("derived");
    let column = batches[0].column_by_name("phone_only").expect("the column");
    assert_eq!(column.as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
}

#[test]
fn a_column_that_no_source_brings_makes_its_derived_columns_null() {
    let whole = batch(0, &[Member { phone: Some(8613800138000), ..Member::default() }]);
    let bare = whole.project(&[0, 1]).expect("two columns");
    let batch = derived(&[bare]);
    for name in ["days_since_last_order", "rfm_r", "rfm_f", "rfm_m", "rfm_segment", "lifecycle", "store_rank_by_spent"] {
        assert_eq!(batch.column_by_name(name).expect("the column").null_count(), 1, "{name}");
    }
    assert_eq!(batch.column_by_name("phone_only").map(|column| column.as_boolean().value(0)), Some(true));
}

#[test]
fn only_what_is_wanted_is_computed() {
    let wanted = BTreeSet::from(["rfm_segment".to_owned(), "store".to_owned()]);
    let how = Derivation { clock_us: 0, timezone: &TimeZone::UTC, linked: &LinkedMembers::default(), wanted: Some(&wanted) };
    let members = batch(0, &[Member { orders: Some(9), spent: Some(1), last: Some(0), ..Member::default() }]);
    let batches = derive(std::slice::from_ref(&members), &how).expect("derived");
    assert_eq!(batches[0].num_columns(), members.num_columns() + 1);
    assert_eq!(words(&batches[0], "rfm_segment"), [Some("champion")]);
}

#[test]
fn wrong_types_and_clocks_are_refused() {
    let batch = RecordBatch::try_from_iter([("order_count", Arc::new(StringArray::from(vec!["1"])) as ArrayRef)]).expect("a batch");
    let linked = LinkedMembers::default();
    let how = |clock_us| Derivation { clock_us, timezone: &UTC, linked: &linked, wanted: None };
    let error = derive(std::slice::from_ref(&batch), &how(0)).expect_err("a text");
    insta::assert_snapshot!(error, @"column `order_count` of the members is Utf8, and must be Int64");
    assert!(matches!(derive(&[batch], &how(i64::MAX)), Err(DeriveError::Clock { .. })));
    assert!(derive(&[], &how(0)).is_ok_and(|batches| batches.is_empty()));
}

fn member() -> impl Strategy<Value = Member> {
    let few = |range: std::ops::Range<i64>| proptest::option::weighted(0.8, range);
    (few(0..4), few(0..900), few(0..900), few(0..10), few(-2..9)).prop_map(|(store, first, last, orders, spent)| Member {
        phone: Some(8613800138000),
        store: store.map(|store| format!("S{store}")),
        first: first.map(days_ago),
        last: last.map(days_ago),
        orders,
        spent,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_cut_of_the_batches_changes_nothing(members in proptest::collection::vec(member(), 1..80), cut in 0_usize..80) {
        let cut = cut.min(members.len());
        let whole = derived(&[batch(0, &members)]);
        let parts = derived(&[batch(0, &members[..cut]), batch(cut, &members[cut..])]);
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn a_score_is_the_share_that_is_not_greater(values in proptest::collection::vec(0_i64..30, 1..100)) {
        let quintiles = Quintiles::of(values.clone());
        for value in &values {
            let below = values.iter().filter(|other| *other <= value).count();
            prop_assert_eq!(quintiles.score(*value), (below * 5).div_ceil(values.len()) as i64);
        }
    }
}

/// `cargo test --release -p reunion-rules -- --ignored --nocapture` prints what a million members cost.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_million_members() {
    let members: Vec<Member> = (0..1_000_000_i64)
        .map(|n| {
            let noise = n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64).unsigned_abs() as i64 % 1_000_003;
            Member {
                phone: Some(8_613_800_000_000 + n as u64),
                store: Some(format!("S{:04}", noise % 400)),
                first: Some(days_ago(noise % 2000)),
                last: Some(days_ago(noise % 900)),
                orders: Some(noise % 9),
                spent: Some(noise * 7),
            }
        })
        .collect();
    let batches: Vec<RecordBatch> = members.chunks(65_536).enumerate().map(|(at, chunk)| batch(at * 65_536, chunk)).collect();
    let timezone = TimeZone::get("Asia/Shanghai").expect("a timezone");
    let how = Derivation { clock_us: us(CLOCK), timezone: &timezone, linked: &LinkedMembers::default(), wanted: None };
    for _ in 0..3 {
        let start = std::time::Instant::now();
        let rows: usize = derive(&batches, &how).expect("derived").iter().map(RecordBatch::num_rows).sum();
        let text = format!("derive: {rows} members in {:?}\n", start.elapsed());
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).expect("standard output");
    }
}
