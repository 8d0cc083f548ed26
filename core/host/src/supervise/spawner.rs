//! The thread that starts workers. A worker asks the system to be killed when its parent dies, and the system
//! takes the *thread* that started it for its parent: so one thread starts them all, and never ends.

use std::io;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Order = (Command, Sender<io::Result<Child>>);

static SPAWNER: LazyLock<io::Result<std::sync::Mutex<Sender<Order>>>> = LazyLock::new(|| {
    let (orders, waiting) = channel::<Order>();
    let work = move || {
        for (mut command, started) in waiting {
            // Whoever ordered it waits.
            let _ = started.send(command.spawn());
        }
    };
    thread::Builder::new().name("spawner".into()).spawn(work)?;
    Ok(std::sync::Mutex::new(orders))
});

/// Starts a process, on the thread that lives as long as the daemon.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let spawner = SPAWNER.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (started, waiting) = channel();
    let ended = || io::Error::other("the thread that starts processes has ended");
    spawner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).send((command, started)).map_err(|_| ended())?;
    waiting.recv().map_err(|_| ended())?
}
