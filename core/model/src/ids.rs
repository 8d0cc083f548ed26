//! Ids: sixteen bytes each, written as thirty-two lower-case hex digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is not thirty-two hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hex digits, and this is not one")]
pub struct ParseIdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The id held in `bytes`, or `None` where it is not sixteen bytes long.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The id as one number, in the order of its bytes.
            pub const fn as_u128(self) -> u128 {
                u128::from_be_bytes(self.0)
            }

            /// The id whose number this is.
            pub const fn from_u128(value: u128) -> Self {
                Self(value.to_be_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError)?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id! {
    /// A member: a person as the business knows them. A truncated HMAC of the founding record and
    /// an epoch, so that a dry run, a crash and a recompute give the same ids.
    MemberId
}
id! {
    /// One intended touch: a truncated HMAC of campaign, contact point, touch number and try.
    TaskId
}
id! {
    /// A group of tasks that a channel is given whole, and again whole after a crash.
    DispatchId
}
id! {
    /// What an operator decided about who is who. Random.
    DecisionId
}
id! {
    /// One execution of a pipeline. Random.
    RunId
}
id! {
    /// One reading of a source from its beginning to its end marker, over all its interruptions.
    PullId
}
id! {
    /// A contact point: a truncated HMAC of a phone number, the only form in which the ledger
    /// looks one up.
    ContactId
}
id! {
    /// A row of a source: a keyed hash of the source's name and the row's own id.
    RecordKey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_text_number_and_json() {
        let id = MemberId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(MemberId::from_u128(id.as_u128()), id);
        let json = serde_json::to_string(&id).expect("an id is JSON");
        assert_eq!(json, "\"30313233343536373839616263646566\"");
        assert_eq!(serde_json::from_str::<MemberId>(&json).ok(), Some(id));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in ["", "30", "3031323334353637383961626364656g", "303132333435363738396162636465660"] {
            assert_eq!(text.parse::<TaskId>(), Err(ParseIdError), "{text}");
        }
    }
}
