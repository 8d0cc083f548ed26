//! The gates that need no other member: each says no for one contact point of one campaign.
//!
//! [`permanent`] and [`temporary`] check in the order of [`Gate::ALL`] and answer with the first gate
//! that says no. The gates that compare members with each other (`same_contact`,
//! `per_store_per_day_max`, `per_run_max`) are the planner's.

use jiff::tz::TimeZone;
use reunion_model::{ContactId, Gate};

use crate::campaign::{Campaign, TaskColumn};
use crate::clock;
use crate::members::Members;
use crate::message::Template;
use crate::person::Suppressed;

/// What a campaign has done to a contact point so far, or to a person at several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touches {
    /// Tasks that took a touch number: all that are neither open, nor cancelled, nor refused by a gate.
    pub touches: u32,
    /// When the last of them was given to the channel, microseconds UTC.
    pub last_touch_us: Option<i64>,
    /// A task is open or is being sent.
    pub in_progress: bool,
    /// The member said no, and is not touched again by this campaign: [`Gate::Suppressed`].
    pub said_no: bool,
    /// The try of the next touch: 1, and one more for each task of that touch that was taken back.
    pub next_try: u32,
}

impl Default for Touches {
    fn default() -> Self {
        Self { touches: 0, last_touch_us: None, in_progress: false, said_no: false, next_try: 1 }
    }
}

impl Touches {
    /// With what was done to the same person at another contact point. The next try stays: it counts tasks to this
    /// one.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            touches: self.touches.saturating_add(other.touches),
            last_touch_us: self.last_touch_us.max(other.last_touch_us),
            in_progress: self.in_progress || other.in_progress,
            said_no: self.said_no || other.said_no,
            next_try: self.next_try,
        }
    }
}

/// What the permanent gates look at for one member.
pub(crate) struct PermanentFacts<'a> {
    pub members: &'a Members<'a>,
    pub row: usize,
    pub contact: ContactId,
    /// The member's other contact points.
    pub others: &'a [ContactId],
    /// What was done to the person.
    pub touches: Touches,
    pub suppressed: &'a Suppressed,
}

/// The first permanent gate that says no.
pub(crate) fn permanent(campaign: &Campaign, facts: &PermanentFacts<'_>) -> Option<Gate> {
    let &PermanentFacts { members, row, contact, others, touches, suppressed } = facts;
    if members.do_not_contact(row) || touches.said_no || suppressed.stops(contact, others) {
        Some(Gate::Suppressed)
    } else if campaign.consent.is_some_and(|purpose| !members.has_consent(row, purpose)) {
        Some(Gate::NoConsent)
    } else if touches.touches >= campaign.touches_max {
        Some(Gate::TouchesMax)
    } else {
        None
    }
}

/// The temporary gates of a campaign at one moment, with all that does not depend on the member
/// worked out once.
pub(crate) struct Temporary<'a> {
    /// A touch at or after this moment is within the gap.
    gap_from_us: i64,
    stale_sources: u64,
    window_open: bool,
    needs: &'a [TaskColumn],
    /// Columns without which a template gives no text.
    required: Vec<&'a str>,
}

impl<'a> Temporary<'a> {
    pub fn new(campaign: &'a Campaign, clock_us: i64, timezone: &TimeZone, stale_sources: u64) -> Self {
        let mut required: Vec<&str> =
            [&campaign.message, &campaign.reason].into_iter().flatten().flat_map(Template::required).map(String::as_str).collect();
        required.sort_unstable();
        required.dedup();
        Self {
            gap_from_us: gap_from(campaign, clock_us, timezone),
            stale_sources,
            window_open: campaign.window.as_ref().is_none_or(|window| window.contains(clock_us, timezone)),
            needs: &campaign.needs,
            required,
        }
    }

    /// The columns of members that the gates read beside those which every plan reads.
    pub fn required(&self) -> &[&'a str] {
        &self.required
    }

    /// The first temporary gate that says no. `required` are the columns of [`Temporary::required`].
    pub fn check(&self, members: &Members<'_>, row: usize, touches: Touches, required: &[crate::members::Column<'_>]) -> Option<Gate> {
        if touches.in_progress {
            Some(Gate::InProgress)
        } else if touches.last_touch_us.is_some_and(|last| last >= self.gap_from_us) {
            Some(Gate::Gap)
        } else if members.sources(row) & self.stale_sources != 0 {
            Some(Gate::Stale)
        } else if !self.window_open {
            Some(Gate::Window)
        } else if self.lacks(members, row) || required.iter().any(|column| column.is_null(row)) {
            Some(Gate::Incomplete)
        } else {
            None
        }
    }

    fn lacks(&self, members: &Members<'_>, row: usize) -> bool {
        self.needs.iter().any(|need| match need {
            TaskColumn::Store => members.store(row).is_none(),
            TaskColumn::Staff => members.staff(row).is_none(),
            TaskColumn::Name => members.name(row).is_none(),
            // The campaign has them or does not: see `Campaign::check`.
            TaskColumn::Campaign | TaskColumn::Reason | TaskColumn::Message | TaskColumn::Due => false,
        })
    }
}

/// The first moment whose touches are within the gap of a campaign: the gap counts calendar days, so that a daily
/// run at the same hour is not late by the seconds that sending took.
pub(crate) fn gap_from(campaign: &Campaign, clock_us: i64, timezone: &TimeZone) -> i64 {
    if campaign.gap_days == 0 {
        return i64::MAX;
    }
    clock::start_of_day(clock::add_days(clock::day(clock_us, timezone), 1 - i64::from(campaign.gap_days)), timezone)
}
