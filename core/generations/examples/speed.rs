//! Measures what a first sync of a million rows costs here: writing a segment, committing it, and
//! reading it back. `cargo run --release -p reunion-generations --example speed [rows]`

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use reunion_generations::{ManifestMeta, People, StateDir, open_or_create_keys};
use reunion_keys::MasterKey;
use reunion_model::schema::{DECIMAL_PRECISION, DECIMAL_SCALE};
use reunion_model::{PullId, RunId};

fn main() -> Result<(), Box<dyn Error>> {
    let rows: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir_in(std::env::current_dir()?)?;
    let state = StateDir::create(folder.path())?;
    let keys = open_or_create_keys(&state, &MasterKey::generate()?)?;
    let people = People::new(state, Arc::new(keys));
    let batches: Vec<RecordBatch> = (0..rows).step_by(8192).map(|first| batch(first, 8192.min(rows - first))).collect::<Result<_, _>>()?;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let mut out = std::io::stdout();
    writeln!(out, "{rows} rows, {} columns, {} MB in memory", batches[0].num_columns(), bytes >> 20)?;

    let mut clock = Instant::now();
    let mut lap = |what: &str| -> std::io::Result<()> {
        let taken = clock.elapsed();
        clock = Instant::now();
        writeln!(out, "{:>6} ms  {what}", taken.as_millis())
    };
    let mut segments = Vec::new();
    for (seq, batches) in batches.chunks(64).enumerate() {
        let mut writer = people.segment("pos", PullId([1; 16]), seq as u64, 1, batches[0].schema())?;
        for batch in batches {
            writer.write(batch)?;
        }
        segments.push(writer.finish()?);
    }
    lap(&format!("segments written and synced, {} MB", segments.iter().map(|segment| segment.bytes()).sum::<u64>() >> 20))?;
    let writer = people.begin(1, 1, None)?;
    for segment in &segments {
        writer.add_segment(segment, &[])?;
    }
    writer.delta("members", "record_key", batches.iter().cloned())?;
    let head = writer.finish(meta())?.generation;
    lap("generation with as many members")?;
    for part in people.read_segments(&segments, None)? {
        part?;
    }
    lap("segments read, all columns")?;
    let generation = people.open(&head)?;
    let ten: Vec<&str> = batches[0].schema_ref().fields().iter().take(10).map(|field| field.name().as_str()).collect();
    for part in generation.live("members", Some(&ten))? {
        part?;
    }
    lap("members read, ten columns")?;
    for part in generation.live("records/pos", Some(&ten))? {
        part?;
    }
    lap("live records read, ten columns")?;
    let writer = people.begin(2, 1, Some(&generation))?;
    writer.delta("members", "record_key", batches.iter().take(batches.len() / 100 + 1).cloned())?;
    writer.finish(meta())?;
    lap("next generation, 1 % of the members changed")?;
    Ok(())
}

/// Rows shaped like those of an export.
fn batch(first: u64, rows: u64) -> Result<RecordBatch, Box<dyn Error>> {
    let numbers = || first..first + rows;
    let mixed = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number >> 7);
    let hash = |salt: u64| -> ArrayRef {
        let bytes: Vec<u8> =
            numbers().flat_map(|n| [mixed(n + salt).to_be_bytes(), mixed(mixed(n) + salt).to_be_bytes()].concat()).collect();
        Arc::new(FixedSizeBinaryArray::new(16, bytes.into(), None))
    };
    let text = |make: &dyn Fn(u64) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(numbers().map(make))) };
    let time = |salt: u64| -> ArrayRef {
        let times = numbers().map(|n| 1_700_000_000_000_000 + (mixed(n + salt) % 63_000_000) as i64 * 1_000_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    };
    let money = |salt: u64| -> Result<ArrayRef, arrow::error::ArrowError> {
        let amounts = numbers().map(|n| i128::from(mixed(n + salt) % 1_000_000));
        Ok(Arc::new(Decimal128Array::from_iter_values(amounts).with_precision_and_scale(DECIMAL_PRECISION, DECIMAL_SCALE)?))
    };
    let nothing: ArrayRef = Arc::new(StringArray::new_null(usize::try_from(rows)?));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("record_key", hash(1)),
        ("content_hash", hash(2)),
        ("record_id", text(&|n| format!("C{n:09}"))),
        ("phone", Arc::new(UInt64Array::from_iter_values(numbers().map(|n| 8_613_900_000_000 + mixed(n) % 100_000_000)))),
        ("name", text(&|n| format!("顾客{}", mixed(n) % 100_000))),
        ("store", text(&|n| format!("store-{:03}", mixed(n) % 300))),
        ("updated_at", time(1)),
        ("last_order_at", time(2)),
        ("total_spent", money(1)?),
        ("order_count", Arc::new(UInt64Array::from_iter_values(numbers().map(|n| mixed(n) % 40)))),
        ("reason", Arc::clone(&nothing)),
        ("raw", nothing),
        ("staff", text(&|n| format!("staff-{:04}", mixed(n) % 3000))),
        ("level", text(&|n| ["gold", "silver", "plain"][(mixed(n) % 3) as usize].to_owned())),
        ("created_at", time(3)),
        ("registered_at", time(4)),
        ("points", money(2)?),
        ("balance", money(3)?),
        ("sms_consent", text(&|n| ["granted", "withdrawn", "unknown"][(mixed(n) % 3) as usize].to_owned())),
        ("do_not_contact", Arc::new(BooleanArray::from_iter(numbers().map(|n| Some(mixed(n) % 50 == 0))))),
    ];
    let batch = RecordBatch::try_from_iter(columns)?;
    Ok(batch)
}

fn meta() -> ManifestMeta {
    ManifestMeta {
        clock_us: 0,
        run_id: RunId::default(),
        fact_seq: 0,
        sources: Default::default(),
        pulls: Default::default(),
        schema: serde_json::Value::Null,
        config_digest: String::new(),
    }
}
