//! The daemon, whose components fail again and again for as long as it runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reunion_integration_tests::harness::end;
use serde_json::Value;

use super::processes::{self, Process};
use super::shop::{MEMBERS, Shop};

/// A pipeline starts with the minute, and the outbox looks every five seconds.
const WAIT: Duration = Duration::from_secs(150);

/// The daemon, in a session of its own.
struct Daemon<'a> {
    shop: &'a Shop,
    child: Child,
}

impl<'a> Daemon<'a> {
    fn start(shop: &'a Shop) -> Self {
        let log = File::create(shop.retailer.path("log")).unwrap();
        let child = shop.command(&["run"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { shop, child }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.shop.retailer.path("log")).unwrap()).into_owned()
    }

    /// Its processes.
    fn processes(&self) -> Vec<Process> {
        processes::all().into_iter().filter(|process| process.session == self.child.id()).collect()
    }

    /// What the program says of it, once that is so.
    #[track_caller]
    fn status_when(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WAIT;
        loop {
            assert_eq!(self.child.try_wait().unwrap(), None, "the daemon has ended\n{}", self.log());
            let status = self.shop.run(&["status", "--format", "json"]).exits(0).json();
            if is(&status) {
                return status;
            }
            assert!(Instant::now() < until, "in vain: {what}\n{status:#}\n{}", self.log());
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Asks it to end, which it does as one that has nothing under way.
    #[track_caller]
    fn stop(mut self) {
        let session = self.child.id();
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &session.to_string()]);
        end(kill).exits(0);
        let until = Instant::now() + Duration::from_secs(30);
        let ended = loop {
            match self.child.try_wait().unwrap() {
                Some(ended) => break ended,
                None => assert!(Instant::now() < until, "it does not end\n{}", self.log()),
            }
            thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(ended.code(), Some(0), "{}", self.log());
        processes::none_is("a worker outlives the daemon", |process| process.session == session && process.state != 'Z');
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A component of the config, as `status` has it.
fn of<'a>(status: &'a Value, component: &str) -> &'a Value {
    status["plugins"].as_array().unwrap().iter().find(|plugin| plugin["component"] == component).unwrap()
}

fn restarts(status: &Value, component: &str) -> u64 {
    of(status, component)["health"]["restarts"].as_u64().unwrap_or(0)
}

fn has_tasks(status: &Value, channel: &str, state: &str) -> bool {
    status["tasks"].as_array().unwrap().iter().any(|tasks| tasks["channel"] == channel && tasks["state"] == state)
}

#[test]
fn a_daemon_whose_components_fail_again_and_again_does_the_work_of_the_others() {
    let mut shop = Shop::new();
    // It goes by the machine's clock.
    shop.retailer.now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
    shop.write_till();
    let second = BTreeMap::from([("answer_secs_max", 1)]);
    for (name, limits, told) in [
        ("crashes", &BTreeMap::new(), "do = \"sigsegv\"\nat = \"item\"\nafter_rows = 30\n"),
        ("hangs", &second, "do = \"hang\"\nat = \"schema\"\n"),
        ("lies", &BTreeMap::new(), "do = \"garbage_utf8\"\nat = \"item\"\n"),
    ] {
        shop.source(name, limits, told);
    }
    for (name, limits, told) in [
        ("polls", &BTreeMap::new(), "do = \"abort\"\nat = \"poll\"\n"),
        ("pushes", &BTreeMap::new(), "do = \"sigsegv\"\nat = \"push\"\n"),
        ("stuck", &second, "do = \"hang\"\nat = \"poll\"\n"),
        ("unmade", &BTreeMap::new(), "do = \"exit\"\nat = \"describe\"\n"),
        ("floods", &BTreeMap::new(), "do = \"flood_log\"\nat = \"poll\"\nonce_file = \"once/floods\"\n"),
        // Well after its first crash: what it was not given then the daemon sends by itself.
        ("recovers", &BTreeMap::new(), "do = \"abort\"\nat = \"receipt\"\nbatch_rows = 2\nafter_rows = 2\nonce_file = \"once/recovers\"\n"),
    ] {
        shop.channel(name, limits, told);
    }
    shop.schedule("* * * * *");
    // Also how long it has to end.
    shop.drain(10);

    let mut daemon = Daemon::start(&shop);
    let run = daemon.status_when("a run has ended", |status| status["runs"][0]["state"] == "finished");
    assert_eq!(run["runs"][0]["exit"], 4, "{run:#}");
    shop.list_is_whole();
    for (source, why) in [("crashes", "signal 11"), ("hangs", "no answer within 1 seconds"), ("lies", "broke the contract")] {
        let state = of(&run, &format!("sources.{source}"))["state"].as_str().unwrap().to_owned();
        assert!(state.starts_with("failed: ") && state.contains(why) && state.contains("restarts 1/5"), "{state}");
    }
    let failing = ["polls", "pushes", "stuck", "unmade"].map(|name| format!("channels.{name}"));
    let status = daemon.status_when("they have failed, were started again, and have failed again", |status| {
        failing.iter().all(|component| restarts(status, component) >= 3) && !has_tasks(status, "recovers", "not_sent")
    });
    for component in &failing {
        let state = of(&status, component)["state"].as_str().unwrap();
        // The last is so where a run that had it too, and no failure, has just ended.
        let is_possible = ["failed: ", "running", "not needed now"].iter().any(|possible| state.starts_with(possible));
        assert!(is_possible, "{component}: {state}");
    }
    for component in ["channels.list", "channels.floods"] {
        let state = of(&status, component)["state"].as_str().unwrap();
        assert!(state.starts_with("running, process "), "{component}: {state}");
    }
    assert_eq!(restarts(&status, "channels.recovers"), 1);
    let mut sent = 0;
    for task in shop.tasks()["recovers"].values() {
        assert!(matches!(task.as_str(), "accepted" | "unknown"), "{task}");
        sent += usize::from(task == "accepted");
    }
    assert!(sent > MEMBERS / 2, "{sent}");
    shop.no_task_was_sent_twice(&["polls", "pushes", "recovers", "floods", "stuck"]);

    // Every process of it is itself or a worker that is alive: none waits to be taken off the list.
    let left: Vec<_> = daemon.processes().into_iter().filter(|process| process.state == 'Z').collect();
    assert!(left.is_empty(), "{left:#?}");
    let log = daemon.log();
    shop.shows_nothing(&log);
    assert!(!log.contains("a run failed") && !log.contains("tasks cannot be sent"), "{log}");
    shop.run(&["status"]).exits(0);
    daemon.stop();
    assert_eq!(shop.run(&["status", "--format", "json"]).exits(0).json()["held_by"], Value::Null);
}
