//! The state of a config, open: keys, files of people, ledger, and the right to change them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use reunion_generations::{
    Generation, GenerationRef, Holder as FileHolder, KeyfileError, LiveSet, LockError, People, SegmentFile, StateDir, StateLock,
    open_or_create_keys,
};
use reunion_keys::KeyRing;
use reunion_ledger::{Head, Holder, LEASE_RENEW, Lease, Ledger, LedgerError, Location};
use tokio::runtime::Handle;

use crate::config::{self, Config};
use crate::failure::{Doing, Failure};

/// Microseconds since the epoch by the machine's clock.
pub fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// A moment for people: RFC 3339 in the config's timezone.
pub fn moment(at_us: i64, zone: &config::Zone) -> String {
    let at = jiff::Timestamp::from_microsecond(at_us).unwrap_or_default();
    at.to_zoned(zone.rules().clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The state, open.
#[derive(Debug, Clone)]
pub struct State {
    /// The keys.
    pub keys: Arc<KeyRing>,
    /// The files of people.
    pub people: People,
    /// The ledger.
    pub ledger: Ledger,
    /// Where the ledger's calls run.
    pub runtime: Handle,
    /// Channels in which a thread of this process is sending.
    sending: Arc<Mutex<HashSet<String>>>,
}

/// The right to send in a channel, against the other threads of this process.
pub struct Sending {
    channels: Arc<Mutex<HashSet<String>>>,
    channel: String,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.channel);
    }
}

impl State {
    /// Opens the state that a config names; an empty folder becomes an empty state.
    ///
    /// # Errors
    /// Where the key is missing or another one, a file is damaged, or the ledger cannot be opened.
    pub fn open(config: &Config, runtime: &Handle) -> Result<Self, Failure> {
        let master = config.master_key()?;
        let dir = &config.state.dir;
        let state = StateDir::create(dir).map_err(|error| {
            let help = "the user that Reunion runs as must be able to write there; choose the folder with [state] dir";
            Failure::other(format!("the state folder {} cannot be used", dir.display())).because(error).help(help)
        })?;
        let keys = Arc::new(open_or_create_keys(&state, &master).map_err(keys_failure)?);
        let location = match &config.state.ledger {
            config::Ledger::Sqlite => Location::Sqlite(dir.join("ledger.sqlite")),
            config::Ledger::Postgres(url) => Location::Postgres(url.clone()),
        };
        let ledger = runtime.block_on(Ledger::open(&location, Arc::clone(&keys))).doing(|| "the ledger cannot be opened".to_owned())?;
        let people = People::new(state, Arc::clone(&keys));
        Ok(Self { people, keys, ledger, runtime: runtime.clone(), sending: Arc::default() })
    }

    /// The right to send in a channel; none while another thread does.
    pub fn send_alone(&self, channel: &str) -> Option<Sending> {
        let is_free = self.sending.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.to_owned());
        is_free.then(|| Sending { channels: Arc::clone(&self.sending), channel: channel.to_owned() })
    }

    /// Waits for a call of the ledger. Not for use on a thread of the runtime.
    ///
    /// # Errors
    /// The ledger's own, as a failure that says it first.
    pub fn ask<T>(&self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, Failure> {
        self.runtime.block_on(call).map_err(ledger_failure)
    }

    /// The head of the chain, opened and pinned; none before the first run.
    ///
    /// # Errors
    /// Where the ledger does not answer, or the generation is damaged.
    pub fn head(&self) -> Result<Option<(Head, Generation)>, Failure> {
        let Some(head) = self.ask(self.ledger.head())? else { return Ok(None) };
        let reference = reference(&head);
        let generation = self.people.open(&reference).map_err(|error| {
            use reunion_generations::GenerationError::{KeyMissing, ManifestVersion};
            let failure = Failure::guard(format!("generation {}, the head, cannot be used", head.generation));
            if matches!(error, KeyMissing { .. } | ManifestVersion { .. }) {
                return failure.because(error);
            }
            failure.because(error).help(self.torn_head_help())
        })?;
        Ok(Some((head, generation)))
    }

    /// What to do where the head is damaged.
    fn torn_head_help(&self) -> String {
        match self.ask(self.ledger.generations(2)).unwrap_or_default().get(1) {
            Some(before) => format!(
                "`reunion verify --all` says which generations are whole; restore this one from a backup, or go back: \
                 `reunion rollback --to {}`",
                before.generation
            ),
            None => "restore the state from a backup: there is no other generation to go back to".to_owned(),
        }
    }

    /// Takes the right to change people. It is given up when the value is dropped.
    ///
    /// # Errors
    /// A guard's failure that says who has it.
    pub fn hold(&self, config: &Config) -> Result<Hold, Failure> {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (pid, since_us) = (std::process::id(), now_us());
        let lock = if self.ledger.is_shared() {
            None
        } else {
            let holder = FileHolder { host: host.clone(), pid, since_us };
            Some(StateLock::take(self.people.state(), &holder).map_err(|error| lock_failure(error, config))?)
        };
        let wait = Duration::from_secs(config.state.lease_wait_secs);
        let lease = self.runtime.block_on(self.ledger.take_lease(&Holder { host, pid, since_us }, wait)).map_err(|error| match error {
            LedgerError::LeaseHeld(holder) => held(&holder.host, holder.pid, holder.since_us, config),
            other => ledger_failure(other),
        })?;
        let renewal = lock.is_none().then(|| Renewal::start(self.clone(), lease));
        Ok(Hold { state: self.clone(), lease, _renewal: renewal, _lock: lock })
    }
}

/// Whether the process that took the lease last may still be at work. One that was killed leaves its name
/// in the ledger; on this machine that is seen at once.
pub fn may_be_alive(holder: &Holder) -> bool {
    let here = rustix::system::uname().nodename().to_string_lossy() == holder.host.as_str();
    let pid = i32::try_from(holder.pid).ok().and_then(rustix::process::Pid::from_raw);
    !here || pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// A generation as the files of people name it.
pub fn reference(head: &Head) -> GenerationRef {
    GenerationRef { number: head.generation, checksum: head.manifest_checksum.clone() }
}

/// A ledger's error as a failure.
pub fn ledger_failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::FenceLost { .. } | LedgerError::HeadMoved { .. } => Failure::guard("another process has taken over").because(error),
        other => Failure::other("the ledger refused").because(other),
    }
}

/// Why the keys of a state cannot be had, and what to do.
pub fn keys_failure(error: KeyfileError) -> Failure {
    match &error {
        KeyfileError::Key { .. } => Failure::guard("the state cannot be opened with this master key")
            .because(error)
            .help("give the key that the state was made with, or choose an empty [state] dir"),
        KeyfileError::Disk(_) => Failure::other("the keys of the state cannot be had").because(error),
        KeyfileError::Damaged { .. } | KeyfileError::Missing { .. } => Failure::guard("the keys of the state cannot be had").because(error),
    }
}

fn lock_failure(error: LockError, config: &Config) -> Failure {
    match error {
        LockError::Held { holder: Some(holder) } => held(&holder.host, holder.pid, holder.since_us, config),
        other => Failure::guard("another run is at work on this state").because(other).help("wait for its end, then try again"),
    }
}

fn held(host: &str, pid: u32, since_us: i64, config: &Config) -> Failure {
    let since = moment(since_us, &config.timezone);
    Failure::guard(format!("another run is at work on this state: process {pid} on {host}, since {since}"))
        .help("wait for its end, or stop it where it is the daemon, then try again; a process that was killed gives way by itself")
}

/// The right to change people: a lock or a lease, and the fence that proves it.
pub struct Hold {
    state: State,
    /// What the ledger's writes show.
    pub lease: Lease,
    _renewal: Option<Renewal>,
    /// Last, so that nobody else comes in before the lease is released.
    _lock: Option<StateLock>,
}

impl Hold {
    /// Whether somebody else has taken the right since. While the ledger does not answer, nobody knows.
    pub fn is_lost(&self) -> bool {
        let renewed = self.state.runtime.block_on(self.state.ledger.renew_lease(&self.lease));
        matches!(renewed, Err(LedgerError::FenceLost { .. }))
    }

    /// Removes files that nobody names any more.
    ///
    /// # Errors
    /// Where the disk or the ledger refuses.
    pub fn remove_orphans(&self, config: &Config) -> Result<(), Failure> {
        let head = self.state.ask(self.state.ledger.head())?;
        let segments = self.state.ask(self.state.ledger.pending_segments())?.into_iter().map(|segment| {
            let file = serde_json::from_value::<SegmentFile>(segment.document);
            file.doing(|| format!("segment {} of pull {} is not understood", segment.seq, segment.pull_id))
        });
        let segments = segments.collect::<Result<_, Failure>>()?;
        let live = LiveSet { head: head.as_ref().map(reference), keep: config.state.keep_generations as usize, segments };
        let removed = self.state.people.remove_orphans(self.lease.fence, &live).doing(|| "old files cannot be removed".to_owned())?;
        tracing::debug!(files = removed.files, bytes = removed.bytes, "removed what nobody needs");
        if let Some(oldest) = removed.oldest {
            self.state.ask(self.state.ledger.forget_before(&self.lease, oldest))?;
        }
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Where it fails the lease ends by itself, or the lock with the process.
        let _ = self.state.runtime.block_on(self.state.ledger.release_lease(&self.lease));
    }
}

/// Keeps a lease of a shared ledger alive, and the dispatches that are being pushed under it.
struct Renewal {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Renewal {
    fn start(state: State, lease: Lease) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // A lease that was lost is found out by the next write that shows it.
                let _ = state.runtime.block_on(state.ledger.renew_lease(&lease));
                let _ = state.runtime.block_on(state.ledger.renew_dispatches());
                std::thread::park_timeout(LEASE_RENEW);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_sends_in_a_channel() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[state]\ndir = \"s\"\nkey = { file = \"key\" }\n[sources.a]\nplugin = \"file\"\n[pipelines.a]\nsources = [\"a\"]\n";
        std::fs::write(folder.path().join("reunion.toml"), text).expect("a config");
        std::fs::write(folder.path().join("key"), "5a".repeat(32)).expect("a key");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("key"), private).expect("its mode");
        let config = Config::load(&folder.path().join("reunion.toml")).expect("a good config");
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let state = State::open(&config, runtime.handle()).expect("an empty state");
        let sending = state.send_alone("lists").expect("nobody sends");
        assert!(state.clone().send_alone("lists").is_none());
        assert!(state.send_alone("sms").is_some(), "another channel");
        drop(sending);
        assert!(state.send_alone("lists").is_some());
    }

    #[test]
    fn a_holder_that_was_killed_is_not_taken_for_alive() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let holder = |host: &str, pid| Holder { host: host.to_owned(), pid, since_us: 0 };
        assert!(may_be_alive(&holder(&host, std::process::id())));
        assert!(may_be_alive(&holder("another-machine.invalid", 1)), "nobody here can know");
        let mut child = std::process::Command::new("true").spawn().expect("a process");
        child.wait().expect("its end");
        assert!(!may_be_alive(&holder(&host, child.id())));
        assert!(!may_be_alive(&holder(&host, u32::MAX)));
    }

    #[test]
    fn moments_are_shown_in_the_configs_timezone_and_never_panic() {
        let text = "timezone = \"Asia/Shanghai\"\n[state]\ndir = \"s\"\nkey = { env = \"K\" }\n[sources.a]\nplugin = \"file\"\n[pipelines.a]\nsources = [\"a\"]\n";
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("reunion.toml"), text).expect("a config");
        let config = Config::load(&folder.path().join("reunion.toml")).expect("a good config");
        assert_eq!(moment(1_774_389_600_000_000, &config.timezone), "2026-03-25T06:00:00+08:00");
        for at_us in [i64::MIN, i64::MAX] {
            assert!(!moment(at_us, &config.timezone).is_empty());
        }
        let held = held("till-1", 42, 1_774_389_600_000_000, &config);
        insta::assert_snapshot!(held.render(false), @r"
        error: another run is at work on this state: process 42 on till-1, since 2026-03-25T06:00:00+08:00
          help: wait for its end, or stop it where it is the daemon, then try again; a process that was killed gives way by itself
        ");
        assert_eq!(held.exit(), crate::cli::Exit::Refused);
    }
}
