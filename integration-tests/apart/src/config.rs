//! The control documents that come in.

use std::time::Duration;

use serde_json::Value;

use crate::abi;
use crate::guard::Failure;

/// Where it can be told to panic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Check,
    /// In a task of the runtime, which makes the rows.
    Task,
    Next,
}

pub struct Config {
    pub rows: usize,
    pub page_rows: usize,
    pub pages_per_state: usize,
    pub page_wait: Duration,
    panic_at: Option<Stage>,
}

fn document(json: &[u8], what: &str) -> Result<Value, Failure> {
    serde_json::from_slice(json).map_err(|error| Failure::internal(format!("{what}: {error}")))
}

impl Config {
    pub fn read(json: &[u8]) -> Result<Self, Failure> {
        let document = document(json, "the config")?;
        let number = |key: &'static str| {
            let number = document.get(key).and_then(Value::as_u64);
            number.ok_or_else(|| Failure::new(abi::INVALID_CONFIG, "expected a whole number").key(key))
        };
        let count = |key| Ok::<_, Failure>(usize::try_from(number(key)?).unwrap_or(usize::MAX));
        let panic_at = match document.get("panic_at").and_then(Value::as_str) {
            None => None,
            Some("check") => Some(Stage::Check),
            Some("task") => Some(Stage::Task),
            Some("next") => Some(Stage::Next),
            Some(_) => return Err(Failure::new(abi::INVALID_CONFIG, "expected check, task or next").key("panic_at")),
        };
        let page_wait = Duration::from_millis(number("page_wait_ms")?);
        let (rows, page_rows, pages_per_state) = (count("rows")?, count("page_rows")?.max(1), count("pages_per_state")?);
        Ok(Self { rows, page_rows, pages_per_state, page_wait, panic_at })
    }

    /// Panics, if this is where to.
    pub fn reach(&self, stage: Stage) {
        assert!(self.panic_at != Some(stage), "told to panic");
    }
}

/// The row that a read goes on from, where it does.
pub fn resume_row(request: &[u8], state: &[u8]) -> Result<Option<usize>, Failure> {
    let resume = document(request, "the request")?.get("resume").and_then(Value::as_bool).unwrap_or(false);
    if !resume || state.is_empty() {
        return Ok(None);
    }
    let row = document(state, "the state")?.get("row").and_then(Value::as_u64);
    Ok(row.and_then(|row| usize::try_from(row).ok()))
}
