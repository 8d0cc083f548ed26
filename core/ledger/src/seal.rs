//! Sealing what is personal or not ours to understand, each value for its own row.

use reunion_keys::KeyRing;
use reunion_model::limits::CONTROL_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{LedgerError, Result};

/// A kind of sealed value. Its name and the row's key are the place that the value is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    /// The value in errors.
    what: &'static str,
    place: &'static [u8],
}

/// What a channel is told of a task.
pub(crate) const PAYLOAD: Sealed = Sealed { what: "a task's payload", place: b"ledger task " };
/// Where a source goes on.
pub(crate) const RESUME: Sealed = Sealed { what: "a source's resume state", place: b"ledger pull " };
/// Where a channel's poll goes on.
pub(crate) const POLL: Sealed = Sealed { what: "a channel's poll state", place: b"ledger poll " };
/// A clerk's own words.
pub(crate) const NOTE: Sealed = Sealed { what: "an event's note", place: b"ledger note " };

impl Sealed {
    fn place(self, key: &[u8]) -> Vec<u8> {
        [self.place, key].concat()
    }

    pub fn seal(self, keys: &KeyRing, key: &[u8], value: &impl Serialize) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(value).expect("a document of plain fields is JSON");
        fits(self.what, text.len())?;
        keys.seal(&self.place(key), &text).map_err(LedgerError::Seal)
    }

    pub fn open<T: DeserializeOwned>(self, keys: &KeyRing, key: &[u8], sealed: &[u8]) -> Result<T> {
        let text = keys.unseal(&self.place(key), sealed).map_err(|source| LedgerError::Sealed { what: self.what, source })?;
        // The parser's message may quote the text, which is personal; its position is enough.
        serde_json::from_slice(&text).map_err(|error| LedgerError::Damaged {
            what: self.what,
            detail: format!("not the JSON that was expected, at column {}", error.column()),
        })
    }
}

/// A document of ours as text.
pub(crate) fn document(what: &'static str, value: &Value) -> Result<String> {
    let text = value.to_string();
    fits(what, text.len())?;
    Ok(text)
}

/// The document that a text holds.
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| LedgerError::Damaged { what, detail: error.to_string() })
}

fn fits(what: &'static str, bytes: usize) -> Result<()> {
    if bytes > CONTROL_BYTES_MAX {
        return Err(LedgerError::TooLarge { what, bytes, bytes_max: CONTROL_BYTES_MAX });
    }
    Ok(())
}
