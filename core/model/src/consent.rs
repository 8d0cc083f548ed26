//! Consent: what a member has agreed to, by purpose.

use serde::{Deserialize, Serialize};

/// What a consent is for. A channel names the purpose that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Commercial text messages.
    Sms,
    /// Phone calls.
    Call,
    /// Messages in an instant messenger.
    Message,
}

impl Purpose {
    /// All purposes, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Sms, Self::Call, Self::Message];

    /// The name in configs and columns: `sms` for the columns `sms_consent`, `sms_consent_at` and
    /// `sms_consent_evidence`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Call => "call",
            Self::Message => "message",
        }
    }
}

/// What is known of one consent. The words are the values of the consent columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Nothing explicit, or a grant without evidence. Never overrides anything.
    #[default]
    Unknown,
    /// An explicit grant.
    Granted,
    /// An explicit refusal or withdrawal.
    Withdrawn,
}

impl Consent {
    /// The word in columns and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Granted => "granted",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// What a source's own word means, where it is one of those in common use; a source with other
    /// words maps them with `values`. Case and surrounding spaces do not matter.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_lowercase().as_str() {
            "" | "unknown" | "null" | "未知" => Self::Unknown,
            "granted" | "true" | "1" | "yes" | "y" | "是" | "同意" => Self::Granted,
            "withdrawn" | "denied" | "revoked" | "false" | "0" | "no" | "n" | "否" | "拒绝" | "不同意" => Self::Withdrawn,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_common_use_are_known() {
        assert_eq!(Consent::from_word(" TRUE "), Some(Consent::Granted));
        assert_eq!(Consent::from_word("否"), Some(Consent::Withdrawn));
        assert_eq!(Consent::from_word(""), Some(Consent::Unknown));
        assert_eq!(Consent::from_word("perhaps"), None);
        for consent in [Consent::Unknown, Consent::Granted, Consent::Withdrawn] {
            assert_eq!(Consent::from_word(consent.name()), Some(consent));
        }
    }
}
