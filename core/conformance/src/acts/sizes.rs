//! Structs of other sizes than today's, and what a call answers after a panic: where the bare status counts.

use reunion_host::probe::{Entered, Raw};
use reunion_host::schema;
use reunion_model::plugin::{ErrorClass, Manifest, PANIC_RUN};
use serde_json::Value;

use super::manifest::raw;
use super::{Played, passed};
use crate::rules;
use crate::stage::{Stage, Stop, failed, skipped};

/// Bytes that a table of a later version has more.
const LATER_BYTES: i32 = 64;
/// Bytes of a struct that is far too small: its size and little else.
const SMALL_BYTES: u32 = 8;

fn internal() -> i32 {
    ErrorClass::Internal.code()
}

/// The config as create is given it: with the schema's defaults filled in.
fn config(stage: &Stage, library: &Raw) -> Value {
    let mut config = stage.request.config.clone();
    let manifest = library.manifest_text().ok().and_then(|text| serde_json::from_slice::<Manifest>(&text).ok());
    if let Some(manifest) = manifest {
        schema::fill_defaults(&mut config, &manifest.config_schema);
    }
    config
}

/// Tables and structs that are smaller and larger than today's.
pub fn sizes(stage: &Stage, has_config: bool) -> Played {
    let library = raw(stage)?;
    stage.doing("reunion_entry_v1 ran");
    let usual = entered(&library, 0, "a table of today's size")?;
    if library.enter(0, true).functions != usual.functions {
        return Err(failed("called twice, it gave other functions the second time", rules::ENTRY));
    }
    for (less, table) in [(-8, "eight bytes smaller than today's"), (i32::MIN, "of four bytes")] {
        stage.doing(format!("reunion_entry_v1 ran with a table {table}"));
        refused(&library.enter(less, true), &format!("a table {table}"))?;
    }
    stage.doing("reunion_entry_v1 ran with a table that is larger than today's");
    let later = entered(&library, LATER_BYTES, &format!("a table {LATER_BYTES} bytes larger than today's"))?;
    if later.size < usual.size {
        return Err(failed(
            format!("it filled {} bytes of a table with more room than the {} it fills today", later.size, usual.size),
            rules::SIZES,
        ));
    }
    stage.doing("reunion_entry_v1 ran with an error that has no room");
    if library.enter(-8, false).error_touched {
        return Err(failed("it wrote into an error that has room for its size alone", rules::SIZES));
    }
    if has_config {
        small_structs(stage, &library)?;
        return passed();
    }
    Ok(("the structs that a component is given were not tried: there is no config that fits".to_owned(), Value::Null))
}

/// The outcome of an entry that must succeed.
fn entered(library: &Raw, more: i32, table: &str) -> Result<Entered, Stop> {
    let entered = library.enter(more, true);
    if entered.status != 0 {
        return Err(failed(
            format!("with {table} it answered {} ({}) where 0 was expected", entered.status, entered.message),
            rules::ENTRY,
        ));
    }
    if entered.beyond {
        return Err(failed(format!("with {table} it wrote behind the table"), rules::SIZES));
    }
    if entered.size > entered.room {
        return Err(failed(format!("with {table} it says that it filled {} bytes of {}", entered.size, entered.room), rules::SIZES));
    }
    if entered.functions.contains(&0) {
        return Err(failed(format!("with {table} it left out a function or the table of its kind"), rules::ENTRY));
    }
    Ok(entered)
}

/// The outcome of an entry that must fail.
fn refused(entered: &Entered, table: &str) -> Result<(), Stop> {
    if entered.beyond {
        return Err(failed(format!("with {table} it wrote behind the table"), rules::SIZES));
    }
    if entered.status != internal() {
        let seen = format!("with {table} it answered {} where {} (internal) was expected", entered.status, internal());
        return Err(failed(seen, rules::SIZES));
    }
    if entered.filled || entered.size != entered.room {
        return Err(failed(format!("it refused {table}, and wrote into it all the same"), rules::OUT));
    }
    Ok(())
}

fn small_structs(stage: &Stage, library: &Raw) -> Result<(), Stop> {
    let expect = |status: i32, what: &str| {
        let seen =
            format!("with a struct of {what} of {SMALL_BYTES} bytes it answered {status} where {} (internal) was expected", internal());
        if status == internal() { Ok(()) } else { Err(failed(seen, rules::SIZES)) }
    };
    stage.doing("create ran with a struct of the host that is too small");
    match library.create(&config(stage, library), Some(SMALL_BYTES)) {
        Err((status, _)) => expect(status, "the host")?,
        Ok(instance) => {
            stage.doing("destroy ran");
            drop(instance);
            expect(0, "the host")?;
        }
    }
    stage.doing("create ran");
    // What create has against the config is told by another case.
    if let Ok(mut instance) = library.create(&config(stage, library), None) {
        stage.calling("check ran with a struct of the call that is too small");
        expect(instance.check(&stage.request.run, Some(SMALL_BYTES)), "the call")?;
        for (request, answer, what) in [(Some(SMALL_BYTES), None, "a request"), (None, Some(SMALL_BYTES), "an answer")] {
            stage.calling(format!("callback ran with a struct of {what} that is too small"));
            if let Some(status) = instance.callback(request, answer) {
                expect(status, what)?;
            }
        }
    }
    Ok(())
}

/// Makes an instance panic by the run id that the SDK honours, and calls it again.
pub fn panic(stage: &Stage) -> Played {
    let library = raw(stage)?;
    stage.doing("create ran");
    let instance = library.create(&config(stage, &library), None);
    let mut instance = instance.map_err(|(status, message)| skipped(format!("create answered {status}: {message}")))?;
    stage.calling("check ran and was to panic");
    if instance.check(PANIC_RUN, None) != internal() {
        return Err(skipped("nothing provokes a panic in it: plugins of the Rust SDK panic where they are asked to"));
    }
    stage.calling("a call ran after a panic");
    let again = [("check", instance.check(&stage.request.run, None))];
    let wrong = again.into_iter().chain(instance.others()).find(|(_, status)| *status != internal());
    if let Some((call, status)) = wrong {
        let seen = format!("after a panic in check, {call} answered {status} where {} (internal) was expected", internal());
        return Err(failed(seen, rules::PANICS));
    }
    stage.doing("destroy ran after a panic");
    drop(instance);
    passed()
}
