//! What the tests of the ledger share: a world with an empty ledger on either database, and short
//! ways to bring it somewhere.

pub mod postgres;

use std::sync::Arc;
use std::time::Duration;

use reunion_keys::{KeyRing, MasterKey};
use reunion_ledger::{Dispatch, Due, GenerationCommit, Group, Holder, Lease, Ledger, Location, NewRun, NewTask, Payload, Pushed, Settled};
use reunion_model::{ContactId, DispatchId, MemberId, Phone, RunId, TaskId, TaskState};
use serde_json::json;

/// The time at which a test's story begins.
pub const T0: i64 = 1_767_225_600_000_000;
pub const SECOND: i64 = 1_000_000;

/// A database with an empty ledger, which any number of processes may open.
pub struct World {
    location: Location,
    keys: Arc<KeyRing>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { location: Location::Sqlite(folder.path().join("ledger.db")), keys: keys(), folder }
    }

    pub fn postgres() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { location: Location::Postgres(postgres::server().database()), keys: keys(), folder }
    }

    /// Opens it as another process would.
    pub async fn open(&self) -> Ledger {
        self.try_open().await.expect("the ledger opens")
    }

    pub async fn try_open(&self) -> reunion_ledger::Result<Ledger> {
        Ledger::open(&self.location, Arc::clone(&self.keys)).await
    }

    pub fn keys(&self) -> &KeyRing {
        &self.keys
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A connection past the ledger, to look at and to disturb what is stored.
    pub async fn execute(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.location {
            Location::Sqlite(path) => {
                let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(path)).await.expect("opens");
                sqlx::query(sql).execute(&pool).await.expect("runs");
                pool.close().await;
            }
            Location::Postgres(url) => {
                let pool = sqlx::PgPool::connect(url).await.expect("opens");
                sqlx::query(sql).execute(&pool).await.expect("runs");
                pool.close().await;
            }
        }
    }
}

pub fn keys() -> Arc<KeyRing> {
    let master = MasterKey::from_hex(&"5a".repeat(32)).expect("a key");
    Arc::new(KeyRing::create(&master).expect("keys").0)
}

pub fn holder(pid: u32) -> Holder {
    Holder { host: "till-server".into(), pid, since_us: T0 }
}

/// An id whose number this is.
pub fn run_id(number: u128) -> RunId {
    RunId::from_u128(number)
}

/// Takes the lease and begins run 1.
pub async fn begin(ledger: &Ledger) -> Lease {
    let lease = ledger.take_lease(&holder(1), Duration::ZERO).await.expect("nobody holds it");
    begin_run(ledger, &lease, 1).await;
    lease
}

pub async fn begin_run(ledger: &Ledger, lease: &Lease, number: u128) {
    let run = NewRun { run_id: run_id(number), pipeline: "daily".into(), clock_us: T0, started_us: T0, base: None };
    ledger.begin_run(lease, &run).await.expect("a new run");
}

/// Phone number `n` of an invented segment.
pub fn phone(n: u32) -> Phone {
    Phone::from_china_mobile(13_900_000_000 + u64::from(n))
}

pub fn contact(world: &World, n: u32) -> ContactId {
    world.keys().lookup().contact(phone(n))
}

/// Task `n`, the first touch of its campaign to phone `n`.
pub fn task(world: &World, n: u32) -> NewTask {
    touch(world, n, 1, 1)
}

pub fn task_id(n: u32, touch: u32, try_number: u32) -> TaskId {
    TaskId::from_u128((u128::from(n) << 64) | (u128::from(touch) << 32) | u128::from(try_number))
}

pub fn touch(world: &World, n: u32, touch: u32, try_number: u32) -> NewTask {
    NewTask {
        task_id: task_id(n, touch, try_number),
        campaign: "warm-add".into(),
        contact: contact(world, n),
        member: MemberId::from_u128(u128::from(n)),
        touch,
        try_number,
        channel: "store-list".into(),
        store: Some(format!("S{}", n % 3)),
        staff: None,
        group: "all".into(),
        not_before_us: T0,
        due_us: Some(T0 + 86_400 * SECOND),
        run_id: run_id(1),
        payload: Payload { name: Some("王小明".into()), phone: phone(n), message: Some("好久不见".into()), reason: None },
    }
}

/// A commit on `base` that does nothing but move the head to `generation`.
pub fn commit(base: Option<u64>, generation: u64) -> GenerationCommit {
    GenerationCommit {
        base,
        generation,
        manifest_checksum: format!("sha256 of generation {generation}"),
        fact_seq: 0,
        clock_us: T0,
        now_us: T0,
        run_id: run_id(1),
        pulls: vec![],
        tasks: vec![],
        arms: vec![],
        regate: vec![],
        forwards: vec![],
        moved: vec![],
        components: vec![],
        report: json!({ "generation": generation }),
    }
}

/// Commits the next generation with these tasks; its number.
pub async fn plan(ledger: &Ledger, lease: &Lease, tasks: Vec<NewTask>) -> u64 {
    let base = ledger.head().await.expect("a head").map(|head| head.generation);
    let generation = ledger.next_generation(lease).await.expect("a number");
    ledger.commit_generation(lease, &GenerationCommit { tasks, ..commit(base, generation) }).await.expect("commits");
    generation
}

/// The only group that is due.
pub async fn only_group(ledger: &Ledger, now_us: i64) -> Group {
    let Due { groups, .. } = ledger.due("store-list", now_us).await.expect("due");
    assert_eq!(groups.len(), 1, "{groups:?}");
    groups.into_iter().next().expect("one")
}

pub async fn state(ledger: &Ledger, task_id: TaskId) -> TaskState {
    ledger.task(task_id).await.expect("reads").expect("is there").task.state
}

/// Claims one group by itself.
pub async fn claim(ledger: &Ledger, channel: &str, group: &Group, now_us: i64, tasks_max: usize) -> Option<Dispatch> {
    let claimed = ledger.claim_dispatches(channel, std::slice::from_ref(group), now_us, tasks_max).await.expect("claims");
    assert!(claimed.dispatches.len() <= 1);
    claimed.dispatches.into_iter().next()
}

/// Ends a dispatch whose receipts are all recorded, or will never come.
pub async fn close(ledger: &Ledger, dispatch_id: DispatchId, retry_at_us: Option<i64>, now_us: i64) -> Settled {
    let settled = ledger.settle_dispatches(&[Pushed { dispatch_id, receipts: vec![], retry_at_us }], 9, now_us).await.expect("settles");
    assert_eq!(settled.lost, []);
    settled
}
