//! Writes the exports of an invented retailer into a folder: see `reunion_integration_tests::generator`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use reunion_integration_tests::generator::{Encoding, Plan, add_hard_cases, file, make};

/// Writes till.csv (GB18030), shop.csv (UTF-8) and truth.csv into a folder.
#[derive(Parser)]
struct Arguments {
    /// The folder; made if it is not there.
    folder: PathBuf,
    /// Rows of both files together.
    #[arg(long, default_value_t = 3_000)]
    rows: usize,
    /// Another seed, another retailer.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stores.
    #[arg(long, default_value_t = 12)]
    stores: usize,
    /// Share of the rows that changed since the first export.
    #[arg(long, default_value_t = 0.0)]
    changed: f64,
    /// With rows that cannot be read.
    #[arg(long)]
    unreadable: bool,
    /// With the hardest cases: recycled numbers, one person with a card in each store, a placeholder on no list.
    #[arg(long)]
    hard: bool,
    /// Both files as UTF-8, for tools that know nothing else.
    #[arg(long)]
    utf8: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { folder, rows, seed, stores, changed, unreadable, hard, utf8 } = Arguments::parse();
    let plan = Plan { rows, seed, stores, changed, unreadable };
    let mut made = make(&plan);
    if hard {
        add_hard_cases(&mut made, &plan);
    }
    fs::create_dir_all(&folder)?;
    for (export, encoding) in made.exports.iter().zip([if utf8 { Encoding::Utf8 } else { Encoding::Gb18030 }, Encoding::Utf8]) {
        fs::write(folder.join(export.name).with_extension("csv"), file(export, encoding, unreadable)?)?;
    }
    let mut truth = csv::Writer::from_path(folder.join("truth.csv"))?;
    truth.write_record(["source", "record_id", "person", "case"])?;
    for row in &made.truth {
        let person = row.person.map(|person| person.to_string()).unwrap_or_default();
        truth.write_record([row.source, &row.record_id, &person, row.case])?;
    }
    truth.flush()?;
    Ok(())
}
