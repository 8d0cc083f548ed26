//! A receiver of webhooks that is often busy, breaks, and loses connections: what the channel `webhook` must bear.
//!
//! It writes the id of each task that it takes to a journal before it answers, a line each, and prints its URL.
#![allow(clippy::print_stdout)]

#[path = "../../../plugins/channels/webhook/tests/common/receiver.rs"]
mod receiver;

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use receiver::{Reply, Request, Server};

#[derive(Parser)]
struct Arguments {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// The ids of the tasks that it has taken. What is there counts.
    #[arg(long)]
    journal: PathBuf,
    /// It takes no task twice.
    #[arg(long)]
    idempotent: bool,
    /// Of a hundred requests those that it answers with 429, and with 500.
    #[arg(long, default_value_t = 0)]
    busy_percent: u32,
    #[arg(long, default_value_t = 0)]
    broken_percent: u32,
    /// Of a hundred requests those whose connection it closes before it takes the tasks, and after.
    #[arg(long, default_value_t = 0)]
    lost_before_percent: u32,
    #[arg(long, default_value_t = 0)]
    lost_after_percent: u32,
    /// Of its accidents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let taken = Mutex::new(Taken::open(&arguments)?);
    let dice = Mutex::new(fastrand::Rng::with_seed(arguments.seed));
    let Arguments { busy_percent, broken_percent, lost_before_percent, lost_after_percent, .. } = arguments;
    let [busy, broken, lost_before, lost_after] = sums([busy_percent, broken_percent, lost_before_percent, lost_after_percent]);
    let server = Server::listen(&arguments.listen, None, move |request: Request| {
        let dice = dice.lock().unwrap_or_else(PoisonError::into_inner).u32(0..100);
        if dice < busy {
            return Reply::Answer(429, vec![("retry-after", "0".into())], String::new());
        }
        if dice < broken {
            return Reply::status(500);
        }
        if dice < lost_before {
            return Reply::Close;
        }
        let written = taken.lock().unwrap_or_else(PoisonError::into_inner).take(&request.task_ids());
        match written {
            Err(_) => Reply::status(500),
            Ok(()) if dice < lost_after => Reply::Close,
            Ok(()) => Reply::status(200),
        }
    });
    println!("{}", server.url());
    loop {
        std::thread::park();
    }
}

/// Each number with those before it.
fn sums(percents: [u32; 4]) -> [u32; 4] {
    let mut sum = 0;
    percents.map(|percent| {
        sum += percent;
        sum
    })
}

/// The tasks that were taken.
struct Taken {
    journal: File,
    /// Those that are not taken again.
    known: Option<HashSet<String>>,
}

impl Taken {
    fn open(arguments: &Arguments) -> std::io::Result<Self> {
        let journal = OpenOptions::new().create(true).append(true).open(&arguments.journal)?;
        let known = arguments.idempotent.then(|| fs::read_to_string(&arguments.journal)).transpose()?;
        Ok(Self { journal, known: known.map(|text| text.lines().map(str::to_owned).collect()) })
    }

    /// Writes down the tasks in one call, which a kill does not cut.
    fn take(&mut self, ids: &[String]) -> std::io::Result<()> {
        let mut known = self.known.as_mut();
        let is_new = |id: &&String| known.as_mut().is_none_or(|known| known.insert((*id).clone()));
        let lines: String = ids.iter().filter(is_new).map(|id| format!("{id}\n")).collect();
        self.journal.write_all(lines.as_bytes())
    }
}
