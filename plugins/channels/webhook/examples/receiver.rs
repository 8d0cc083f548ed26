//! A receiver of Reunion's webhooks: it checks the signature, takes each task once, and answers with a receipt for
//! each.
//!
//! ```text
//! WEBHOOK_SECRET=whsec_… cargo run --example receiver -- 127.0.0.1:8080 taken.db
//! ```
//!
//! What it remembers is an SQLite file, so that a task that is sent again after a crash is known. Where this
//! example prints a task, a real receiver does its work, in the same transaction or from a queue that it fills there.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use standardwebhooks::Webhook;

/// More than a thousand tasks with long messages.
const BODY_BYTES_MAX: usize = 8 << 20;

struct Receiver {
    webhook: Webhook,
    taken: SqlitePool,
}

#[derive(Deserialize)]
struct Envelope {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    task_id: String,
    campaign: String,
    store: Option<String>,
    name: Option<String>,
    phone: String,
    message: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: receiver ADDRESS FILE".into());
    };
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    // One connection: SQLite lets one write at a time.
    let taken = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    sqlx::query("create table if not exists taken (task_id text primary key) without rowid").execute(&taken).await?;
    let webhook = Webhook::new(&std::env::var("WEBHOOK_SECRET").map_err(|_| "WEBHOOK_SECRET is not set")?)?;
    let app = Router::new().route("/hook", post(receive)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}/hook", listener.local_addr()?);
    Ok(axum::serve(listener, app.with_state(Arc::new(Receiver { webhook, taken }))).await?)
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    // The signature is of the bytes as they came, so it is checked before anything reads them.
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope>(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    match take(&receiver.taken, &envelope.data.tasks).await {
        Ok(receipts) => ([(CONTENT_TYPE, "application/json")], json!({ "receipts": receipts }).to_string()).into_response(),
        // Nothing was taken: all of it is one transaction.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Takes tasks, each once, and says what became of each.
async fn take(taken: &SqlitePool, tasks: &[Task]) -> Result<Vec<serde_json::Value>, sqlx::Error> {
    let mut transaction = taken.begin().await?;
    let (mut receipts, mut new) = (Vec::with_capacity(tasks.len()), Vec::new());
    for task in tasks {
        if task.phone.is_empty() {
            receipts.push(json!({"task_id": task.task_id, "verdict": "rejected", "code": "no_phone"}));
            continue;
        }
        let insert = sqlx::query("insert into taken values (?) on conflict do nothing").bind(&task.task_id);
        if insert.execute(&mut *transaction).await?.rows_affected() == 1 {
            new.push(task);
        }
        receipts.push(json!({"task_id": task.task_id, "verdict": "accepted"}));
    }
    transaction.commit().await?;
    for Task { task_id, campaign, store, name, phone, message } in new {
        let [store, name, message] = [store, name, message].map(|text| text.as_deref().unwrap_or("-"));
        println!("{task_id} {campaign} store {store}: {name} {phone} {message}");
    }
    Ok(receipts)
}
