//! One start of the program: from the command line to the exit code.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reunion_host::{Plugins, memory};
use reunion_ledger::Ledger;
use serde::Serialize;
use tokio::runtime::{Builder, Handle};

use crate::cli::{Cli, Command, Exit, Format};
use crate::commands;
use crate::config::Config;
use crate::failure::{Doing, Failure};
use crate::logging;
use crate::state::State;

/// How long the end of a command waits for the ledger to be closed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// What every command has at hand.
pub struct App {
    /// The config.
    pub config: Config,
    /// The plugins that are installed.
    pub plugins: Plugins,
    /// Where the ledger's calls run.
    pub runtime: Handle,
    /// How results are written.
    pub format: Format,
    /// The ledgers that were opened, to be closed at the end.
    opened: Mutex<Vec<Ledger>>,
}

/// Whether this start of the program is a plugin's worker, which a daemon made. What it prints and takes is no
/// command of an operator's.
pub fn is_worker() -> bool {
    std::env::args_os().nth(1).is_some_and(|command| command == reunion_host::WORKER_COMMAND)
}

/// Runs a command to its end.
pub fn main(cli: Cli) -> Exit {
    if matches!(cli.command, Command::PluginCase) {
        return if reunion_conformance::act() == 0 { Exit::Done } else { Exit::Failed };
    }
    memory::keep();
    let format = cli.format;
    match start(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            report(&failure, format);
            failure.exit()
        }
    }
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    if let Command::Key(command) = &cli.command
        && let Some(done) = commands::key::without_config(command)
    {
        return done;
    }
    if let Command::Plugins(command) = &cli.command
        && let Some(done) = commands::plugins::without_config(command, cli.format)
    {
        return done;
    }
    let config = Config::load(cli.config_path())?;
    logging::start(&config.log);
    if cli.command.acts_on_the_config() && !config.warnings().is_empty() {
        let _ = writeln!(io::stderr(), "{}", config.warnings().render(io::stderr().is_terminal()));
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().doing(|| "threads cannot be started".to_owned())?;
    let sends = matches!(cli.command, Command::Once(_) | Command::Run);
    let plugins = Plugins::standard(&config.plugins.path, Some(config.state.dir.join("plugins")), sends);
    let app = App { config, plugins, runtime: runtime.handle().clone(), format: cli.format, opened: Mutex::default() };
    let result = commands::execute(&app, cli.command);
    app.close();
    result
}

fn report(failure: &Failure, format: Format) {
    let text = match format {
        Format::Text => failure.render(io::stderr().is_terminal()),
        Format::Json => {
            let _ = writeln!(io::stdout(), "{:#}", failure.json());
            failure.render(false)
        }
    };
    let _ = writeln!(io::stderr(), "{text}");
}

impl App {
    /// Opens the state.
    ///
    /// # Errors
    /// See [`State::open`].
    pub fn state(&self) -> Result<State, Failure> {
        let state = State::open(&self.config, &self.runtime)?;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(state.ledger.clone());
        Ok(state)
    }

    /// Closes what was opened: else the end of the process would cut off the tidying up of a SQLite file.
    fn close(&self) {
        for ledger in self.opened.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Nothing is lost where it takes too long: all that counts is durable already.
            let _ = self.runtime.block_on(async { tokio::time::timeout(CLOSE_TIME_MAX, ledger.close()).await });
        }
    }

    /// Writes a result to standard output: as JSON, or as `text` makes it for people.
    ///
    /// # Errors
    /// Where standard output is closed.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        print(self.format, value, text)
    }
}

/// Writes a result to standard output: as JSON, or as `text` makes it for people.
///
/// # Errors
/// Where standard output is closed.
pub fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    let mut written = match format {
        Format::Json => serde_json::to_string_pretty(value).doing(|| "the result cannot be written as JSON".to_owned())?,
        Format::Text => text(value),
    };
    if !written.ends_with('\n') {
        written.push('\n');
    }
    match io::stdout().write_all(written.as_bytes()) {
        // Whoever reads may have seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.doing(|| "standard output cannot be written".to_owned()),
    }
}
