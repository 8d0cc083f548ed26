//! The control documents of streams that are no types of the model.

use serde::{Deserialize, Serialize};

/// Of [`crate::item_kind::BEGIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The pull goes on from the state that was given.
    pub resumed: bool,
}

/// Of [`crate::item_kind::END`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When the data was true, where known.
    #[serde(default)]
    pub as_of_us: Option<i64>,
    /// Nothing was sent, since everything is as it was when the pull ended whose state was given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
}
