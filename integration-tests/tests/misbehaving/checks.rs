//! Components that misbehave where nothing is to be changed: in `check --connect`, and in a dry run; and sources that go on
//! misbehaving until somebody mends them.

use std::collections::{BTreeMap, BTreeSet};

use reunion_integration_tests::dump::{Dump, pending_files};
use reunion_integration_tests::harness::{KEY, assert_sums, count};
use reunion_misbehaving::Stage;
use reunion_model::plugin::PluginKind;
use serde_json::Value;

use super::shop::{Case, ROWS, Shop, told};

#[test]
fn a_check_finds_all_that_fail_and_no_other() {
    let mut shop = Shop::new();
    let cases = [PluginKind::Source, PluginKind::Channel].map(|kind| Case::of(kind, Stage::Check)).concat();
    cases.iter().for_each(|case| shop.case(case, ""));
    shop.write_config();

    let findings = shop.run(&["check", "--connect", "--format", "json"]).exits(2).json();
    shop.all_misbehaved(&cases);
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for finding in findings["error"]["findings"].as_array().unwrap() {
        let component = shop.component_at(finding["line"].as_u64().unwrap());
        found.entry(component).or_default().push(finding["message"].as_str().unwrap().to_owned());
    }
    let good = [String::from("sources.till"), String::from("channels.list")];
    assert!(good.iter().all(|good| !found.contains_key(good)), "{found:#?}");
    let lines = cases.iter().map(|case| {
        let of = found.get(&case.component());
        format!("{:8}{}", case.kind.name(), told(&shop, case, &of.map_or("well".to_owned(), |messages| messages.join(" / "))))
    });
    insta::assert_snapshot!("checks", lines.collect::<String>());
    assert!(!shop.retailer.path("state").exists(), "a check changes nothing");
    shop.run(&["check", "--connect"]).exits(0);
}

/// Ways to fail of each kind, one by one: a crash, an error, a hang, memory, a lie that is seen, and one that is not.
const FAILURES: [&str; 9] = ["sigsegv", "exit", "panic", "huge_error", "hang", "allocate", "garbage_utf8", "garbage_length", "begin_twice"];

#[test]
fn sources_that_fail_every_time_go_on_where_they_were_when_they_are_mended() {
    let mut shop = Shop::new();
    let mut cases = Case::of(PluginKind::Source, Stage::Item);
    cases.retain(|case| FAILURES.contains(&case.name()));
    assert_eq!(cases.len(), FAILURES.len());
    for case in &cases {
        shop.source(case.name(), &case.limits(), &format!("do = \"{}\"\nat = \"item\"\nafter_rows = {}\n", case.name(), ROWS / 2));
    }
    shop.write_config();

    // A dry run meets them too, and changes nothing.
    let plan = shop.run(&["plan", "--format", "json", "--now", &shop.retailer.now()]).exits(4).json();
    assert_sums(&plan);
    assert_eq!(plan["sources"]["till"]["failed"], Value::Null);
    let failed = |report: &Value| cases.iter().filter(|case| report["sources"][case.name()]["failed"].is_string()).count();
    assert_eq!(failed(&plan), cases.len(), "{plan:#}");
    assert_eq!(shop.run(&["status", "--format", "json"]).exits(0).json()["generation"], Value::Null);

    let mut read = BTreeSet::new();
    for run in 0..3 {
        let (code, report) = shop.once();
        assert_eq!((code, failed(&report)), (4, cases.len()), "{report:#}");
        if run == 0 {
            shop.good_ones_worked(&report);
        }
        let before = std::mem::replace(&mut read, pending_files(&shop.retailer.path("state"), KEY).unwrap().into_iter().collect());
        assert!(before.is_subset(&read), "what was committed stays: {before:#?}\n{read:#?}");
    }
    assert!(read.len() >= cases.len(), "each has a batch and a state before it fails: {read:#?}");

    shop.clear();
    cases.iter().for_each(|case| shop.source(case.name(), &BTreeMap::new(), ""));
    shop.write_config();
    let (code, report) = shop.once();
    assert_eq!(code, 0, "{report:#}");
    for case in &cases {
        let counts = ["pulled", "new"].map(|key| count(&report, &format!("/sources/{}/{key}", case.name())) as usize);
        assert_eq!(counts, [ROWS; 2], "{}: {report:#}", case.name());
    }
    let dump = Dump::read(&shop.retailer.path("state"), KEY, &shop.retailer.path("out")).unwrap();
    assert_eq!(dump.broken, Vec::<String>::new());
    let again: Vec<_> = read.difference(&dump.files).collect();
    assert!(again.is_empty(), "what was read before is not read again: {again:#?}");
}
