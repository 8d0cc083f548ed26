#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use reunion_keys::{KeyRing, MasterKey};
use reunion_ledger::*;
use reunion_model::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
#[tokio::main]
async fn main() {
    let location = match std::env::args().nth(1) {
        Some(url) => Location::Postgres(url),
        None => {
            let p = std::env::temp_dir().join("bench-ledger.db");
            for s in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{s}", p.display()));
            }
            Location::Sqlite(p)
        }
    };
    let keys = Arc::new(KeyRing::create(&MasterKey::from_hex(&"5a".repeat(32)).unwrap()).unwrap().0);
    let l = Ledger::open(&location, keys.clone()).await.unwrap();
    let lease = l.take_lease(&Holder { host: "h".into(), pid: 1, since_us: 0 }, Duration::ZERO).await.unwrap();
    let run_id = RunId::from_u128(1);
    l.begin_run(&lease, &NewRun { run_id, pipeline: "p".into(), clock_us: 0, started_us: 0, base: None }).await.unwrap();
    let n = 100_000u32;
    let tasks: Vec<NewTask> = (0..n)
        .map(|i| {
            let phone = Phone::from_china_mobile(13_900_000_000 + u64::from(i));
            NewTask {
                task_id: TaskId(keys.lookup().id("task", &[&i.to_be_bytes()])),
                campaign: "warm-add".into(),
                contact: keys.lookup().contact(phone),
                member: MemberId(keys.lookup().id("m", &[&i.to_be_bytes()])),
                touch: 1,
                try_number: 1,
                channel: "store-list".into(),
                store: Some(format!("S{:03}", i % 300)),
                staff: None,
                group: format!("S{:03}", i % 300),
                not_before_us: 0,
                due_us: None,
                run_id,
                payload: Payload {
                    name: Some("王小明".into()),
                    phone,
                    message: Some("好久不见，门店为您准备了一份小礼物，欢迎回来看看。".into()),
                    reason: None,
                },
            }
        })
        .collect();
    let commit = GenerationCommit {
        base: None,
        generation: 1,
        manifest_checksum: "x".into(),
        fact_seq: 0,
        clock_us: 0,
        now_us: 0,
        run_id,
        pulls: vec![],
        tasks,
        arms: vec![],
        regate: vec![],
        forwards: vec![],
        components: vec![],
        acceptances_used: vec![],
        report: serde_json::json!({}),
    };
    let t = Instant::now();
    l.commit_generation(&lease, &commit).await.unwrap();
    println!("plan {n}: {:?}", t.elapsed());
    let t = Instant::now();
    println!("open {}: {:?}", l.open_tasks().await.unwrap().len(), t.elapsed());
    let t = Instant::now();
    println!("touches {}: {:?}", l.touches("warm-add").await.unwrap().len(), t.elapsed());
    let t = Instant::now();
    let due = l.due("store-list", 1).await.unwrap();
    println!("due {}: {:?}", due.groups.len(), t.elapsed());
    let (mut c, mut r, mut x) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for g in &due.groups {
        let t = Instant::now();
        let d = l.claim_dispatch("store-list", g, 1, 100_000).await.unwrap().unwrap();
        c += t.elapsed();
        let rec: Vec<_> = d
            .tasks
            .iter()
            .map(|t| Receipt { task_id: t.task_id, verdict: Verdict::Accepted, retry_after_ms: None, code: None, message: None })
            .collect();
        let t = Instant::now();
        l.record_receipts(d.dispatch_id, &rec, 3, 1).await.unwrap();
        r += t.elapsed();
        let t = Instant::now();
        l.close_dispatch(d.dispatch_id, None, 1).await.unwrap();
        x += t.elapsed();
    }
    println!("claim {c:?} receipts {r:?} close {x:?} for {} dispatches", due.groups.len());
}
