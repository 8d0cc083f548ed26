//! Gates: the checks between a campaign's audience and a task, and what each refusal means.

use serde::{Deserialize, Serialize};

/// Whether a gate's no is for good or for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// Refuses. Counted under `refused`, before the control group is drawn.
    Permanent,
    /// Defers to a later run. Counted under `deferred`, after the control group was drawn.
    Temporary,
}

macro_rules! gates {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal, $kind:ident: $explain:literal,)+) => {
        /// A check that a task has to pass, in the order in which the checks are made.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Gate {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $variant,)+
        }

        impl Gate {
            /// Every gate, in the order in which they are checked.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code in reports.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// Whether it refuses or defers.
            pub const fn kind(self) -> GateKind {
                match self { $(Self::$variant => GateKind::$kind,)+ }
            }

            /// One sentence for the operator.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $explain,)+ }
            }

            /// The gate that has this code.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|gate| gate.code() == code)
            }
        }
    };
}

gates! {
    /// The member, the phone, or the merge that held the task is gone.
    Gone = "gone", Permanent: "the member left the data, has another phone now, or is in quarantine",
    /// No longer in the campaign's audience. Only for tasks that are open already.
    NotInAudience = "not_in_audience", Permanent: "the member no longer matches the campaign's audience",
    /// The campaign is off or retired. Only for tasks that are open already.
    CampaignOff = "campaign_off", Permanent: "the campaign was switched off or retired",
    /// In the control group now. Only for tasks that are open already.
    Control = "control", Permanent: "the phone belongs to the campaign's control group since its member was merged with another",
    /// On the suppression list, marked as not to be contacted by a source, or refused by the member.
    Suppressed = "suppressed", Permanent: "the phone or another number of the member is on the suppression list, a source says not to contact this member, or the member said no to this campaign",
    /// The channel needs a consent that is not there.
    NoConsent = "no_consent", Permanent: "the channel needs the member's consent with evidence, and there is none",
    /// Every touch that the campaign allows was made.
    TouchesMax = "touches_max", Permanent: "the campaign has touched this member touches_max times",
    /// Another member of the audience has the same phone and comes first.
    SameContact = "same_contact", Permanent: "another member with the same phone gets the task: one phone is touched once",
    /// A task for this touch is open or waits for its outcome.
    InProgress = "in_progress", Temporary: "a task of this campaign for this phone, or another number of the member, is still open",
    /// The last touch was less than `gap_days` ago.
    Gap = "gap", Temporary: "the last touch was less than gap_days ago",
    /// The member's data is older than `max_age_hours`.
    Stale = "stale", Temporary: "the data of the member's sources is older than max_age_hours",
    /// Outside the campaign's time window.
    Window = "window", Temporary: "the run's clock is outside the campaign's window",
    /// The channel's message needs a value that the member lacks.
    Incomplete = "incomplete", Temporary: "the member lacks a value that the channel needs, such as the store of a store list",
    /// `per_store_per_day_max` is used up.
    StorePerDay = "per_store_per_day_max", Temporary: "the store has been given per_store_per_day_max tasks for this day",
    /// `per_run_max` is used up.
    PerRun = "per_run_max", Temporary: "the run has planned per_run_max tasks of this campaign",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_gates_come_before_temporary_ones() {
        let first_temporary = Gate::ALL.iter().position(|gate| gate.kind() == GateKind::Temporary);
        let last_permanent = Gate::ALL.iter().rposition(|gate| gate.kind() == GateKind::Permanent);
        assert!(last_permanent < first_temporary, "the control group is drawn between the two");
        for gate in Gate::ALL {
            assert_eq!(Gate::from_code(gate.code()), Some(*gate));
        }
    }
}
