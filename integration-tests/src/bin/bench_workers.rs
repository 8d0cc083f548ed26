//! What a worker costs: the same rows of the dummy source through a process of its own, through a thread of this
//! one over the same bridge, and by a direct call; by turns. And what a worker takes that has nothing to do.
//!
//! The worker is the program `reunion` beside this one, and the libraries are beside it too. `BENCH_ROWS` (1,000,000) and `BENCH_TIMES` (7) choose other numbers.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use reunion_host::{CallOptions, ComponentSpec, Health, HealthState, Isolation, Part, Plugin, Plugins, SourceConnector};
use reunion_model::plugin::{Item, PluginKind, ReadMode, ReadRequest};
use serde_json::{Value, json};

const REQUEST: ReadRequest = ReadRequest::new(ReadMode::Snapshot);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rows, times): (usize, usize) = (number("BENCH_ROWS", 1_000_000), number("BENCH_TIMES", 7));
    let config = json!({"rows": rows, "batch_rows": 8192, "batches_per_state": 8});
    let memory = tempfile::tempdir()?;
    let plugins = Plugins::apart(vec![beside()?], beside()?.join("reunion"), Some(memory.path().join("plugins")), true);
    let plugin = plugins.find(PluginKind::Source, "dummy")?;
    let direct = Plugins::new(vec![beside()?]).find(PluginKind::Source, "dummy")?;
    let mut ways: Vec<(&str, Box<dyn SourceConnector>, Vec<f64>)> = vec![
        ("direct call", direct.source("direct", &config)?, Vec::new()),
        ("in-process", bridged(&plugins, &plugin, "thread", Isolation::InProcess, &config)?, Vec::new()),
        ("process", bridged(&plugins, &plugin, "process", Isolation::Process, &config)?, Vec::new()),
    ];
    // Nobody's first read counts.
    for _ in 0..=times {
        for (_, source, secs) in &mut ways {
            let began = Instant::now();
            let read = read(source.as_ref())?;
            secs.push(began.elapsed().as_secs_f64());
            assert_eq!(read, rows);
        }
    }
    println!("{rows} rows of 6 columns from the dummy source, {times} times by turns, seconds:");
    for (way, _, secs) in &mut ways {
        secs.remove(0);
        secs.sort_by(f64::total_cmp);
        println!("{way:<12} least {:.3}  middle {:.3}  most {:.3}", secs[0], secs[secs.len() / 2], secs[secs.len() - 1]);
    }
    let idle = bridged(&plugins, &plugin, "idle", Isolation::Process, &config)?;
    println!(
        "a worker that was made and not called: {} KiB resident",
        resident_kib(plugins.health(PluginKind::Source, "idle", Part::Work))?
    );
    drop(idle);
    Ok(())
}

fn beside() -> Outcome<PathBuf> {
    Ok(std::env::current_exe()?.parent().ok_or("a program is in a folder")?.to_owned())
}

fn bridged(plugins: &Plugins, plugin: &Plugin, name: &str, isolation: Isolation, config: &Value) -> Outcome<Box<dyn SourceConnector>> {
    let spec = ComponentSpec { isolation, ..ComponentSpec::new(PluginKind::Source, name) };
    Ok(plugins.source(plugin, spec, config.clone())?)
}

/// Reads to the end; how many rows there were.
fn read(source: &dyn SourceConnector) -> Outcome<usize> {
    let mut stream = source.read(&CallOptions::default(), &REQUEST, None)?;
    let mut rows = 0;
    while let Some(item) = stream.next()? {
        if let Item::Batch(batch) = item {
            rows += batch.num_rows();
        }
    }
    Ok(rows)
}

fn resident_kib(health: Option<Health>) -> Outcome<u64> {
    let Some(HealthState::Running { pid: Some(pid), .. }) = health.map(|health| health.state) else {
        return Err("there is no worker".into());
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("a process has a size")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
