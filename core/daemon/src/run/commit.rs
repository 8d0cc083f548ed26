//! The commit: the generation's files are made durable, then one ledger transaction makes them the head.
//!
//! Files are encoded, compressed and encrypted, and then wait for the disk. So each is begun as soon as what
//! it holds is worked out, beside the stages that come after.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use arrow::array::{FixedSizeBinaryBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use reunion_generations::{GenerationWriter, ManifestMeta};
use reunion_ledger::{Arm as StoredArm, ArmKind, Component, ComponentKind, GenerationCommit, NewTask, Payload};
use reunion_model::limits::{BATCH_ROWS_MAX, BATCHES_IN_FLIGHT_MAX};
use reunion_model::record::RECORD_KEY;
use reunion_model::schema::MEMBER_ID;
use reunion_model::threads::one_by_one;
use reunion_model::{ContactId, MemberId, RecordKey, RunId, fault};
use reunion_outreach::Arm;
use reunion_people::Assignments;
use reunion_rules::TagDelta;

use crate::failure::{Doing, Failure};
use crate::state::{Hold, now_us};

use super::holders;
use super::outreach::Outreach;
use super::people::People;
use super::report::Report;
use super::setup::Setup;
use super::sources::PulledSources;

/// Rows beyond which a table is written to two files at once.
const ROWS_IN_ONE_FILE_MAX: usize = 100_000;

/// The key column of the table of tags.
const TAG_KEY: &str = "tag_key";

/// A generation whose files are being written, beside the stages that come after them.
pub struct Draft<'a> {
    setup: &'a Setup<'a>,
    hold: &'a Hold,
    number: u64,
    writer: GenerationWriter<'a>,
}

impl<'a> Draft<'a> {
    /// Begins a generation.
    ///
    /// # Errors
    /// Where the disk or the ledger refuses.
    pub fn begin(setup: &'a Setup<'a>, hold: &'a Hold) -> Result<Self, Failure> {
        let number = setup.state.ask(setup.state.ledger.next_generation(&hold.lease))?;
        let writer = setup.state.people.begin(number, hold.lease.fence, setup.base());
        Ok(Self { setup, hold, number, writer: writer.doing(|| format!("generation {number} cannot be written"))? })
    }

    /// Writes which record is whose.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn assignments(&self, tombstones: &[Vec<RecordKey>], assignments: &Assignments) -> Result<(), Failure> {
        for tombstones in tombstones {
            self.writer.remove("assignments", tombstones.iter().map(|key| key.0)).doing(unwritten)?;
        }
        self.writer.delta("assignments", RECORD_KEY, assignments.batches()).doing(unwritten)
    }

    /// Begins to write so many members, and ends those that are removed.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn members<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        members: usize,
        removed: &[MemberId],
    ) -> Result<MembersFiles<'scope>, Failure> {
        self.writer.remove("members", removed.iter().map(|id| id.0)).doing(unwritten)?;
        let file = |_| {
            let (batches, waiting) = sync_channel(BATCHES_IN_FLIGHT_MAX);
            (batches, scope.spawn(|| self.writer.delta("members", MEMBER_ID, waiting).doing(unwritten)))
        };
        let (batches, files) = (0..files_of(members)).map(file).unzip();
        Ok(MembersFiles { batches, files, next: 0 })
    }

    /// Writes records, and what goes with members.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn records(&self, people: &People) -> Result<(), Failure> {
        let Self { setup, writer, .. } = self;
        for (segment, repeated) in &people.segments {
            writer.add_segment(segment, repeated).doing(unwritten)?;
        }
        for (source, (origin, schema)) in setup.schemas.iter().enumerate() {
            let table = format!("records/{origin}");
            if schema.retired {
                writer.rename(&table, None);
                continue;
            }
            writer.remove(&table, people.tombstones[source].iter().map(|key| key.0)).doing(unwritten)?;
            if let Some(restored) = people.restored.get(&source) {
                writer.delta(&table, RECORD_KEY, restored.iter().cloned()).doing(unwritten)?;
            }
        }
        holders::write(setup.state.keys.lookup(), writer, people)?;
        writer.delta("forwards", MEMBER_ID, forwards(people)?).doing(unwritten)
    }

    /// Writes who gained or lost a tag.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn tags(&self, delta: &TagDelta) -> Result<(), Failure> {
        let Self { setup, writer, .. } = self;
        let removals = delta.removals.iter().map(|batch| tag_keys(setup, batch)).collect::<Result<Vec<_>, _>>()?.concat();
        writer.remove("tags", removals.into_iter()).doing(unwritten)?;
        let files = files_of(delta.upserts.iter().map(RecordBatch::num_rows).sum());
        let written = one_by_one(&(0..files).collect::<Vec<_>>(), files, |file| {
            let share = delta.upserts.iter().map(|batch| {
                let bound = |file: usize| batch.num_rows() * file / files;
                keyed_tags(setup, &batch.slice(bound(*file), bound(file + 1) - bound(*file)))
            });
            writer.delta("tags", TAG_KEY, share.collect::<Result<Vec<_>, _>>()?).doing(unwritten)
        });
        written.into_iter().collect()
    }

    /// Writes who was in an audience and got no task, and why.
    ///
    /// # Errors
    /// Where the disk refuses, or the head cannot be read.
    pub fn decisions(&self, outreach: &Outreach) -> Result<(), Failure> {
        let Self { setup, writer, .. } = self;
        let names: Vec<&str> = outreach.plan.campaigns.iter().map(|campaign| campaign.name.as_str()).collect();
        let mut decisions = decisions_of_others(setup, &names)?;
        for batch in outreach.plan.decisions.batches(&names, BATCH_ROWS_MAX * 8) {
            decisions.push(batch.doing(unwritten)?);
        }
        writer.replace("decisions", None, decisions).doing(unwritten)
    }

    /// Commits the run, once all other files are written; the number of its generation.
    ///
    /// # Errors
    /// Where the disk or the ledger refuses, or somebody else has moved the head: nothing is changed then.
    pub fn commit(
        self,
        run_id: RunId,
        pulled: &PulledSources,
        people: &People,
        outreach: &Outreach,
        report: &Report,
    ) -> Result<u64, Failure> {
        let Self { setup, hold, number, writer } = self;
        let doing = || format!("generation {number} cannot be written");
        let meta = ManifestMeta {
            clock_us: setup.clock_us,
            run_id,
            fact_seq: setup.facts.seq as i64,
            sources: pulled.iter().map(|(origin, pulled)| (origin.clone(), pulled.cursor.clone().unwrap_or_default())).collect(),
            pulls: people.pulls.clone(),
            schema: serde_json::to_value(&people.schema).doing(doing)?,
            config_digest: setup.app.config.digest(),
        };
        let committed = writer.finish(meta).doing(doing)?;
        let mut report = report.clone();
        report.commit(number);
        let commit = GenerationCommit {
            base: setup.base_number(),
            generation: number,
            manifest_checksum: committed.generation.checksum,
            fact_seq: setup.facts.seq,
            clock_us: setup.clock_us,
            now_us: now_us(),
            run_id,
            pulls: people.pulls.values().flatten().copied().collect(),
            tasks: tasks(setup, run_id, outreach),
            arms: arms(outreach),
            regate: outreach.regate.clone(),
            forwards: people.merges.clone(),
            moved: outreach.moved.clone(),
            components: components(setup, people, outreach),
            report: serde_json::to_value(&report).doing(doing)?,
        };
        fault::point("commit.before");
        setup.state.ask(setup.state.ledger.commit_generation(&hold.lease, &commit))?;
        fault::point("commit.after");
        Ok(number)
    }
}

fn unwritten() -> String {
    "the files of the generation cannot be written".to_owned()
}

/// Files for so many new rows. The members of a first run and their tags are most of what there is to write: each table in
/// two files, side by side.
fn files_of(rows: usize) -> usize {
    if rows > ROWS_IN_ONE_FILE_MAX { 2 } else { 1 }
}

/// Files of members that are being written.
pub struct MembersFiles<'scope> {
    batches: Vec<SyncSender<RecordBatch>>,
    files: Vec<ScopedJoinHandle<'scope, Result<(), Failure>>>,
    next: usize,
}

impl<'scope> MembersFiles<'scope> {
    /// Adds members, once there is room for them.
    pub fn write(&mut self, members: &RecordBatch) {
        // Where a file could not be written, its thread says why.
        let _ = self.batches[self.next % self.batches.len()].send(members.clone());
        self.next += 1;
    }

    /// These were all; the threads that write the files to their ends.
    pub fn end(self) -> Vec<ScopedJoinHandle<'scope, Result<(), Failure>>> {
        self.files
    }
}

/// What a thread that writes came to.
pub fn joined(thread: ScopedJoinHandle<'_, Result<(), Failure>>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure::other("writing a generation broke off; this is a defect")))
}

/// What the last runs of other pipelines decided: it stands until they run again.
fn decisions_of_others(setup: &Setup<'_>, planned: &[&str]) -> Result<Vec<RecordBatch>, Failure> {
    use arrow::array::{AsArray, BooleanArray};
    let Some(base) = setup.base().filter(|_| setup.campaigns.keys().any(|name| !planned.contains(&name.as_str()))) else {
        return Ok(Vec::new());
    };
    let doing = || "the decisions of the head cannot be read".to_owned();
    let mut kept = Vec::new();
    for part in base.live("decisions", None).doing(doing)? {
        let batch = part.doing(doing)?.batch;
        let campaigns = batch.column_by_name("campaign").expect("decisions have campaigns").as_string::<i32>();
        let own = |name: &str| planned.contains(&name) || !setup.campaigns.contains_key(name);
        let stays: BooleanArray = campaigns.iter().map(|name| Some(name.is_some_and(|name| !own(name)))).collect();
        let batch = filter_record_batch(&batch, &stays).doing(doing)?;
        kept.extend((batch.num_rows() > 0).then_some(batch));
    }
    Ok(kept)
}

/// Ids that are no more: merged into another, or without records. None of them is ever given again.
fn forwards(people: &People) -> Result<Vec<RecordBatch>, Failure> {
    let doing = || "forwards cannot be put into columns".to_owned();
    if people.removed.is_empty() {
        return Ok(Vec::new());
    }
    let into: std::collections::HashMap<MemberId, MemberId> = people.merges.iter().copied().collect();
    let mut from_column = FixedSizeBinaryBuilder::new(16);
    let mut into_column = FixedSizeBinaryBuilder::new(16);
    for id in &people.removed {
        from_column.append_value(id.0).doing(doing)?;
        match into.get(id) {
            Some(into) => into_column.append_value(into.0).doing(doing)?,
            None => into_column.append_null(),
        }
    }
    let schema = Schema::new(vec![
        Field::new(MEMBER_ID, DataType::FixedSizeBinary(16), false),
        Field::new("into", DataType::FixedSizeBinary(16), true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(from_column.finish()), Arc::new(into_column.finish())]);
    Ok(vec![batch.doing(doing)?])
}

/// The key of each row of stored tags: a hash of member and tag.
fn tag_keys(setup: &Setup<'_>, batch: &RecordBatch) -> Result<Vec<[u8; 16]>, Failure> {
    use arrow::array::AsArray;
    let lookup = setup.state.keys.lookup();
    let members = batch.column(0).as_fixed_size_binary();
    let tags = batch.column(1).as_string::<i32>();
    let mut text = Vec::new();
    let keys = (0..batch.num_rows()).map(|row| {
        text.clear();
        text.extend_from_slice(members.value(row));
        text.extend_from_slice(tags.value(row).as_bytes());
        lookup.row_hash(&text).to_be_bytes()
    });
    Ok(keys.collect())
}

/// Stored tags with their key before them.
fn keyed_tags(setup: &Setup<'_>, batch: &RecordBatch) -> Result<RecordBatch, Failure> {
    let doing = || "tags cannot be put into columns".to_owned();
    let mut keys = FixedSizeBinaryBuilder::with_capacity(batch.num_rows(), 16);
    for key in tag_keys(setup, batch)? {
        keys.append_value(key).doing(doing)?;
    }
    let mut fields = vec![Arc::new(Field::new(TAG_KEY, DataType::FixedSizeBinary(16), false))];
    fields.extend(batch.schema().fields().iter().cloned());
    let mut columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(keys.finish())];
    columns.extend(batch.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).doing(doing)
}

fn tasks(setup: &Setup<'_>, run_id: RunId, outreach: &Outreach) -> Vec<NewTask> {
    let new_task = |(campaign, task): (&reunion_outreach::CampaignPlan, &reunion_outreach::PlannedTask)| NewTask {
        task_id: task.task_id,
        campaign: campaign.name.clone(),
        contact: task.contact,
        member: task.member_id,
        touch: task.touch,
        try_number: task.attempt,
        channel: setup.campaigns[&campaign.name].channel.clone(),
        store: task.store.clone(),
        staff: task.staff.clone(),
        group: task.group.clone(),
        not_before_us: setup.clock_us,
        due_us: task.due_us,
        run_id,
        payload: Payload { name: task.name.clone(), phone: task.phone, message: task.message.clone(), reason: task.reason.clone() },
    };
    outreach.plan.tasks().map(new_task).collect()
}

fn arms(outreach: &Outreach) -> Vec<StoredArm> {
    let stored = |campaign: &str, contact: ContactId, arm: Arm| StoredArm {
        campaign: campaign.to_owned(),
        contact,
        arm: match arm {
            Arm::Control => ArmKind::Control,
            Arm::Treatment => ArmKind::Treatment,
        },
    };
    let merged = outreach.merged_arms.iter().map(|(campaign, contact, arm)| stored(campaign, *contact, *arm));
    let drawn =
        outreach.plan.campaigns.iter().flat_map(|of| of.new_arms.iter().map(move |(contact, arm)| stored(&of.name, *contact, *arm)));
    merged.chain(drawn).collect()
}

fn components(setup: &Setup<'_>, people: &People, outreach: &Outreach) -> Vec<Component> {
    let sources = people.schema.sources.keys().map(|origin| &setup.schemas[origin]);
    let sources = sources.map(|schema| Component { kind: ComponentKind::Source, name: schema.name.clone(), seed: None });
    let campaign = |campaign: &reunion_outreach::CampaignPlan| Component {
        kind: ComponentKind::Campaign,
        name: campaign.name.clone(),
        seed: Some(campaign.seed.0),
    };
    sources.chain(outreach.plan.campaigns.iter().map(campaign)).collect()
}
