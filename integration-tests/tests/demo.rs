//! The demo's config and files, by the real binary: what the README shows of it is what it prints.

#[path = "../../plugins/channels/webhook/tests/common/receiver.rs"]
mod receiver;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use receiver::{Reply, Server};
use reunion_integration_tests::harness::Retailer;

/// The day of `run.sh`.
const NOW: &str = "2026-09-21T22:30:00+08:00";

#[test]
fn the_demo_reads_four_sources_and_sends_nothing_twice() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let seen = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&seen);
    let server = Server::start(move |request| {
        *counted.lock().unwrap() += request.task_ids().len();
        Reply::status(200)
    });
    let config = fs::read_to_string(root.join("config/demo/reunion.toml")).unwrap();
    let retailer = Retailer::new(&config.replace("http://127.0.0.1:18473/hook", &server.url()));
    for name in ["till.csv", "shop.csv", "counter.db", "regulars.xlsx"] {
        fs::copy(root.join("config/demo").join(name), retailer.path(name)).unwrap();
    }
    retailer.write_key("webhook.secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");

    let first = retailer.run(&["once", "--now", NOW]).exits(0);
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    // The control group is drawn with the state's own key, so that what depends on it differs.
    let (sources, _) = first.stdout.split_once("\n campaign ").unwrap();
    // It shortens what was quarantined for which reason.
    for line in sources.lines().skip(1).map(str::trim_end).filter(|line| !line.contains("quarantined:")) {
        assert!(readme.contains(line), "the README does not show {line:?}");
    }
    let sent = *seen.lock().unwrap();
    assert!(sent > 0, "{}", first.stdout);

    let second = retailer.run(&["once", "--now", NOW]).exits(0);
    assert!(second.stdout.contains("no task was planned"), "{}", second.stdout);
    assert_eq!(*seen.lock().unwrap(), sent);
}
