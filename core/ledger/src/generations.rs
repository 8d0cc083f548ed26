//! The chain of generations: its head, the commit that moves it, and the way back.

use reunion_model::threads::on_all_cores;
use reunion_model::{ContactId, Gate, MemberId, PullId, RunId, TaskId, TaskState};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::components::Component;
use crate::error::{LedgerError, Result};
use crate::seal::document;
use crate::sql::{Args, Row, Tx, args, is_duplicate};
use crate::tasks::{Move, NewTask, names};
use crate::touches::Arm;
use crate::{Lease, Ledger};

/// A committed generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub generation: u64,
    /// The fence of the holder who committed it.
    pub fence: u64,
    /// The checksum of its manifest.
    pub manifest_checksum: String,
    /// The facts that it took into account.
    pub fact_seq: u64,
    /// The clock of its run.
    pub clock_us: i64,
    /// When it was committed.
    pub committed_us: i64,
    /// Its run.
    pub run_id: RunId,
}

/// Everything that becomes true when a generation is committed. Its files are durable already.
#[derive(Debug, Clone)]
pub struct GenerationCommit {
    /// The head that it was built on.
    pub base: Option<u64>,
    /// Its number, from [`Ledger::next_generation`].
    pub generation: u64,
    /// The checksum of its manifest.
    pub manifest_checksum: String,
    /// [`crate::Facts::seq`] of the facts that were taken into account.
    pub fact_seq: u64,
    /// The clock of the run.
    pub clock_us: i64,
    /// The time of the commit.
    pub now_us: i64,
    /// The run.
    pub run_id: RunId,
    /// The pulls that it takes in. Each has ended and is in no other generation.
    pub pulls: Vec<PullId>,
    /// The tasks that it plans.
    pub tasks: Vec<NewTask>,
    /// The arms that it drew. One that was drawn before stays, except that control wins.
    pub arms: Vec<Arm>,
    /// Open tasks that a gate refuses now.
    pub regate: Vec<(TaskId, Gate)>,
    /// Members that became part of others: tasks of the first belong to the second from now on.
    pub forwards: Vec<(MemberId, MemberId)>,
    /// Contact points that left a member with the records that were split off: its tasks there, after the forwards
    /// were followed, belong to the new member from now on.
    pub moved: Vec<(MemberId, ContactId, MemberId)>,
    /// The sources and campaigns that it was made with.
    pub components: Vec<Component>,
    /// The run's counts.
    pub report: Value,
}

/// What a commit did beside moving the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Open tasks that were cancelled; those that were being sent by then are left out.
    pub regated: u64,
}

/// What a rollback did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RolledBack {
    /// The head until then.
    pub from: u64,
    /// Pulls that are in no generation any more, and which the next run takes in again.
    pub pulls_to_replay: u64,
    /// Open tasks of the generations given up, now cancelled.
    pub tasks_cancelled: u64,
}

const COLUMNS: &str =
    "select g.generation, g.fence, g.manifest_checksum, g.fact_seq, g.clock_us, g.committed_us, g.run_id from generations g";

/// Payloads below which a thread of their own costs more than it gains.
const SEALS_PER_THREAD_MIN: usize = 1024;

/// The code of tasks that a rollback took back.
const ROLLED_BACK: &str = "rolled_back";

impl Ledger {
    /// The head; none in an empty state.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn head(&self) -> Result<Option<Head>> {
        let mut tx = self.store.read("read the head").await?;
        tx.row(AssertSqlSafe(format!("{COLUMNS} join head h on h.generation = g.generation")), args![], read_head).await
    }

    /// A number for a new generation. It is used up whether the generation is committed or not, so no
    /// two holders ever write into the same folder.
    ///
    /// # Errors
    /// [`LedgerError::FenceLost`].
    pub async fn next_generation(&self, lease: &Lease) -> Result<u64> {
        let mut tx = self.store.write("number a generation").await?;
        tx.hold(lease).await?;
        let number = tx.raise("generations", 1).await?;
        tx.commit().await?;
        Ok(number)
    }

    /// Committed generations that were not rolled back, newest first.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn generations(&self, limit: u32) -> Result<Vec<Head>> {
        let mut tx = self.store.read("list generations").await?;
        let sql = format!("{COLUMNS} where g.rolled_back_us is null order by g.generation desc limit $1");
        tx.rows(AssertSqlSafe(sql), args![limit], read_head).await
    }

    /// Moves the head to a new generation, plans its tasks, gates open ones again, and stores its
    /// counts, all or nothing.
    ///
    /// # Errors
    /// [`LedgerError::HeadMoved`] and [`LedgerError::FenceLost`] where the run is void;
    /// [`LedgerError::NotFound`] for a pull that is not waiting or a run that was not begun;
    /// [`LedgerError::Exists`] for a generation or a touch that is there already.
    pub async fn commit_generation(&self, lease: &Lease, commit: &GenerationCommit) -> Result<Committed> {
        let payloads = on_all_cores(&commit.tasks, SEALS_PER_THREAD_MIN, |task| self.seal_payload(task));
        let payloads = payloads.into_iter().collect::<Result<Vec<_>>>()?;
        let report = document("a run's report", &commit.report)?;
        let mut tx = self.store.write("commit a generation").await?;
        tx.hold(lease).await?;
        tx.move_head(lease, commit).await?;
        let sql = "update runs set generation = $2, report = $3 where run_id = $1";
        if tx.execute(sql, args![commit.run_id, commit.generation, report]).await? == 0 {
            return Err(LedgerError::NotFound { what: "run", name: commit.run_id.to_string() });
        }
        tx.consume(commit).await?;
        tx.remember(commit).await?;
        let forwards = commit.forwards.iter().map(|(from, into)| args![*from, *into]);
        tx.bulk("update tasks set member = v.column2 from (values {values}) as v where tasks.member = v.column1", &args![], forwards)
            .await?;
        let moved = commit.moved.iter().map(|(from, contact, into)| args![*from, *contact, *into]);
        let sql = "update tasks set member = v.column3 from (values {values}) as v \
             where tasks.member = v.column1 and tasks.contact = v.column2";
        tx.bulk(sql, &args![], moved).await?;
        let regate = commit.regate.iter().map(|(task_id, gate)| Move::because(*task_id, gate.code())).collect();
        let regated = tx.move_tasks(TaskState::Cancelled, false, regate, commit.now_us).await?;
        tx.plan(&commit.tasks, payloads, commit.generation, commit.clock_us, commit.now_us).await?;
        tx.commit().await?;
        Ok(Committed { regated })
    }

    /// Makes an earlier generation the head again. The pulls of later ones are kept and taken in again
    /// by the next run; sources go on from where their last pull ended, for its rows are still here.
    /// Open tasks of later generations are cancelled. What was sent, the arms that were drawn, and what
    /// operators decided stay.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where the generation was never committed or was rolled back itself,
    /// [`LedgerError::FenceLost`].
    pub async fn rollback(&self, lease: &Lease, generation: u64, who: &str, now_us: i64) -> Result<RolledBack> {
        let mut tx = self.store.write("roll back").await?;
        tx.hold(lease).await?;
        let missing = || LedgerError::NotFound { what: "generation", name: generation.to_string() };
        let sql = "select h.generation from head h join generations g on g.generation = $1 \
             where g.rolled_back_us is null and g.generation <= h.generation";
        let from = tx.row(sql, args![generation], |row| row.unsigned(0)).await?.ok_or_else(missing)?;
        tx.execute("update head set generation = $1, fence = $2 where id = 1", args![generation, lease.fence]).await?;
        let sql = "update generations set rolled_back_us = $2 where generation > $1 and rolled_back_us is null";
        tx.execute(sql, args![generation, now_us]).await?;
        let pulls_to_replay = tx.execute("update pulls set consumed = null where consumed > $1", args![generation]).await?;
        let open = names(TaskState::ALL.into_iter().filter(|state| state.is_open()));
        let sql = format!("select task_id from tasks where state in ({open}) and generation > $1");
        let tasks = tx.rows(AssertSqlSafe(sql), args![generation], |row| row.id::<TaskId>(0)).await?;
        let moves = tasks.into_iter().map(|task_id| Move::because(task_id, ROLLED_BACK)).collect();
        let tasks_cancelled = tx.move_tasks(TaskState::Cancelled, false, moves, now_us).await?;
        tx.audit(now_us, who, "rollback", &format!("generation {generation}"), &format!("the head was {from}")).await?;
        tx.commit().await?;
        Ok(RolledBack { from, pulls_to_replay, tasks_cancelled })
    }
}

impl Tx {
    async fn move_head(&mut self, lease: &Lease, commit: &GenerationCommit) -> Result<()> {
        let sql = "insert into generations (generation, base, fence, manifest_checksum, fact_seq, clock_us, committed_us, run_id) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let GenerationCommit { base, generation, manifest_checksum, fact_seq, clock_us, now_us, run_id, .. } = commit;
        let values = args![*generation, *base, lease.fence, manifest_checksum, *fact_seq, *clock_us, *now_us, *run_id];
        self.execute(sql, values).await.map_err(|error| {
            if is_duplicate(&error) { LedgerError::Exists { what: "generation", name: generation.to_string() } } else { error }
        })?;
        let moved = match base {
            Some(base) => {
                let sql = "update head set generation = $1, fence = $2 where id = 1 and generation = $3";
                self.execute(sql, args![*generation, lease.fence, *base]).await?
            }
            None => {
                let sql = "insert into head (id, generation, fence) values (1, $1, $2) on conflict do nothing";
                self.execute(sql, args![*generation, lease.fence]).await?
            }
        };
        if moved == 0 {
            let found = self.row("select generation from head where id = 1", args![], |row| row.unsigned(0)).await?;
            return Err(LedgerError::HeadMoved { base: *base, found });
        }
        Ok(())
    }

    async fn consume(&mut self, commit: &GenerationCommit) -> Result<()> {
        for pull_id in &commit.pulls {
            let sql = "update pulls set consumed = $2 where pull_id = $1 and state = 'ended' and consumed is null";
            if self.execute(sql, args![*pull_id, commit.generation]).await? == 0 {
                return Err(LedgerError::NotFound { what: "pull that waits for a generation", name: pull_id.to_string() });
            }
        }
        Ok(())
    }

    async fn remember(&mut self, commit: &GenerationCommit) -> Result<()> {
        for Component { kind, name, seed } in &commit.components {
            let sql = "insert into components (kind, name, origin, seed, since_us) values ($1, $2, $2, $3, $4) on conflict (kind, name) \
                 do update set seed = coalesce(components.seed, excluded.seed), retired_us = null";
            self.execute(sql, args![kind.name(), name, *seed, commit.clock_us]).await?;
        }
        let sql = "insert into arms (campaign, contact, arm, generation) values {values} on conflict (campaign, contact) \
             do update set arm = excluded.arm where excluded.arm = 'control'";
        let arms = commit.arms.iter().map(|arm| -> Args { args![&arm.campaign, arm.contact, arm.arm.name(), commit.generation] });
        self.bulk(sql, &args![], arms).await?;
        Ok(())
    }
}

fn read_head(row: &Row) -> Result<Head> {
    Ok(Head {
        generation: row.unsigned(0)?,
        fence: row.unsigned(1)?,
        manifest_checksum: row.text(2)?,
        fact_seq: row.unsigned(3)?,
        clock_us: row.int(4)?,
        committed_us: row.int(5)?,
        run_id: row.id(6)?,
    })
}
