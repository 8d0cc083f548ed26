//! The lock on a state: one run writes at a time, and the lock dies with its process.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::durable::{failed, read_document};
use crate::{DiskError, StateDir};

/// Who holds the lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// When it took the lock, microseconds UTC.
    pub since_us: i64,
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the state is in use{}", holder.as_ref().map(|h| format!(" by process {} on {}", h.pid, h.host)).unwrap_or_default())]
    Held {
        /// Who, where the file says it.
        holder: Option<Holder>,
    },
    /// The lock's file cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The lock, held until it is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    /// The open file *is* the lock.
    _file: File,
}

impl StateLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] with the holder, or the disk's error.
    pub fn take(state: &StateDir, holder: &Holder) -> Result<Self, LockError> {
        let path = state.lock();
        // Not truncated when it is opened: the text is the present holder's until the lock is ours.
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(failed("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { holder: read_holder(state)? }),
            Err(error) => return Err(failed("lock", &path)(error.into()).into()),
        }
        let text = serde_json::to_vec(holder).expect("a holder is JSON");
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(&text)).map_err(failed("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// What the lock's file says; `None` in the moment before its holder has written it.
fn read_holder(state: &StateDir) -> Result<Option<Holder>, DiskError> {
    let text = read_document(&state.lock(), 64 << 10)?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32) -> Holder {
        Holder { host: "till-1".into(), pid, since_us: 1_700_000_000_000_000 }
    }

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path()).unwrap();
        let first = StateLock::take(&state, &holder(1)).unwrap();
        let error = StateLock::take(&state, &holder(2)).unwrap_err();
        insta::assert_snapshot!(error, @"the state is in use by process 1 on till-1");
        assert!(matches!(error, LockError::Held { holder: Some(found) } if found == holder(1)));
        drop(first);
        StateLock::take(&state, &holder(2)).unwrap();
    }

    /// The child that [`the_lock_dies_with_its_process`] starts: takes the lock, says so, and waits to be
    /// killed. Nothing in an ordinary run of the tests.
    #[test]
    fn child_holds_the_lock() {
        let Some(folder) = std::env::var_os("REUNION_TEST_LOCK") else { return };
        let state = StateDir::create(folder).unwrap();
        let _lock = StateLock::take(&state, &holder(std::process::id())).unwrap();
        std::fs::write(state.root().join("ready"), b"").unwrap();
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }

    #[test]
    fn the_lock_dies_with_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::create(folder.path()).unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock::tests::child_holds_the_lock"])
            .env("REUNION_TEST_LOCK", folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !state.root().join("ready").exists() {
            assert!(child.try_wait().unwrap().is_none(), "the child ended early");
            std::thread::yield_now();
        }
        let error = StateLock::take(&state, &holder(2)).unwrap_err();
        assert!(matches!(error, LockError::Held { holder: Some(found) } if found.pid == child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        StateLock::take(&state, &holder(2)).unwrap();
    }
}
