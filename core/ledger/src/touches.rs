//! What planning has to know of the past: touches made, arms drawn, and the load of each store.

use std::collections::HashMap;

use reunion_model::task::Outcome;
use reunion_model::{ContactId, TaskState};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::Result;
use crate::sql::{Row, args};
use crate::tasks::{names, read_state};

/// What a campaign did to a contact point so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touches {
    /// The number of the last touch that is used up: sent, or refused by the channel for good.
    pub touches: u32,
    /// When it was last given to a channel that took it, or may have.
    pub last_touch_us: Option<i64>,
    /// A task waits to be sent, or is being sent.
    pub open: bool,
    /// The member said no, or asked not to be contacted.
    pub said_no: bool,
    /// The try number of the next task for the touch `touches + 1`, 1 for the first.
    pub next_try: u32,
}

impl Default for Touches {
    /// Nothing yet.
    fn default() -> Self {
        Self { touches: 0, last_touch_us: None, open: false, said_no: false, next_try: 1 }
    }
}

/// The side of the control group that a contact point is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArmKind {
    /// Not contacted, to compare with.
    Control,
    /// Contacted.
    Treatment,
}

impl ArmKind {
    /// The name in the ledger and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Treatment => "treatment",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Control, Self::Treatment].into_iter().find(|arm| arm.name() == name)
    }
}

/// An arm that was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arm {
    /// The campaign.
    pub campaign: String,
    /// The contact point. Of a number that came to somebody else, each later holder has one of its own here, which
    /// is no phone's.
    pub contact: ContactId,
    /// The side.
    pub arm: ArmKind,
}

/// The touches of one contact point while its tasks are read.
#[derive(Default)]
struct Tally {
    sum: Touches,
    /// Of tasks that were taken back: the greatest touch and its greatest try.
    taken_back: Option<(u32, u32)>,
}

impl Tally {
    fn add(&mut self, touch: u32, try_number: u32, state: TaskState, sent_us: Option<i64>, outcome: Option<Outcome>) {
        self.sum.said_no |= matches!(outcome, Some(Outcome::Refused | Outcome::DoNotCall));
        if matches!(state, TaskState::Cancelled | TaskState::Refused) {
            self.taken_back = self.taken_back.max(Some((touch, try_number)));
            return;
        }
        self.sum.open |= state.is_open() || state == TaskState::Sending;
        if state.is_open() {
            return;
        }
        // A rejected task used its touch up too: its number cannot be planned again.
        self.sum.touches = self.sum.touches.max(touch);
        self.sum.last_touch_us = self.sum.last_touch_us.max(sent_us);
    }

    fn finish(self) -> Touches {
        let next_try = self.taken_back.filter(|(touch, _)| *touch == self.sum.touches + 1).map_or(1, |(_, last)| last + 1);
        Touches { next_try, ..self.sum }
    }
}

impl Ledger {
    /// The touches of every contact point that a campaign ever had a task for.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn touches(&self, campaign: &str) -> Result<HashMap<ContactId, Touches>> {
        let mut tx = self.store.read("read touches").await?;
        let mut tallies: HashMap<ContactId, Tally> = HashMap::new();
        let sql = format!(
            "select touch, try_number, state, sent_us, outcome, {} from tasks where campaign = $1 \
             group by touch, try_number, state, sent_us, outcome",
            tx.ids_of("contact")
        );
        tx.each(AssertSqlSafe(sql), args![campaign], |row| {
            let (touch, try_number, state, sent_us) = (row.small(0)?, row.small(1)?, read_state(&row, 2)?, row.int_or_null(3)?);
            let outcome = row.text_or_null(4)?.and_then(|name| Outcome::from_name(&name));
            for contact in row.ids(5)? {
                tallies.entry(contact).or_default().add(touch, try_number, state, sent_us, outcome);
            }
            Ok(())
        })
        .await?;
        Ok(tallies.into_iter().map(|(contact, tally)| (contact, tally.finish())).collect())
    }

    /// Every arm that was drawn for a campaign.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn arms(&self, campaign: &str) -> Result<HashMap<ContactId, ArmKind>> {
        let mut tx = self.store.read("read arms").await?;
        let sql = format!("select arm, {} from arms where campaign = $1 group by arm", tx.ids_of("contact"));
        let read = |row: &Row| Ok((row.word(0, "an arm", ArmKind::from_name)?, row.ids(1)?));
        let arms = tx.rows(AssertSqlSafe(sql), args![campaign], read).await?;
        Ok(arms.into_iter().flat_map(|(arm, contacts)| contacts.into_iter().map(move |contact| (contact, arm))).collect())
    }

    /// How many tasks of a campaign each store was given by runs whose clock was at or after `from_us`
    /// and before `to_us`, without those that were taken back.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn planned_per_store(&self, campaign: &str, from_us: i64, to_us: i64) -> Result<HashMap<String, u64>> {
        let mut tx = self.store.read("count the tasks of stores").await?;
        let sql = format!(
            "select store, count(*) from tasks where campaign = $1 and planned_us >= $2 and planned_us < $3 and store is not null \
             and state not in ({}) group by store",
            names([TaskState::Cancelled, TaskState::Refused].into_iter())
        );
        let rows = tx.rows(AssertSqlSafe(sql), args![campaign, from_us, to_us], |row| Ok((row.text(0)?, row.unsigned(1)?)));
        Ok(rows.await?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_count_what_may_have_reached_the_member() {
        let mut tally = Tally::default();
        tally.add(1, 1, TaskState::Cancelled, None, None);
        tally.add(1, 2, TaskState::Delivered, Some(10), Some(Outcome::Added));
        tally.add(2, 1, TaskState::Refused, None, None);
        tally.add(2, 2, TaskState::Cancelled, None, None);
        let touches = tally.finish();
        assert_eq!(touches, Touches { touches: 1, last_touch_us: Some(10), open: false, said_no: false, next_try: 3 });
    }

    #[test]
    fn an_open_task_is_no_touch_yet_and_a_rejected_one_is() {
        let mut tally = Tally::default();
        tally.add(1, 1, TaskState::Rejected, Some(5), None);
        tally.add(2, 1, TaskState::NotSent, Some(7), None);
        let touches = tally.finish();
        assert_eq!(touches, Touches { touches: 1, last_touch_us: Some(5), open: true, said_no: false, next_try: 1 });
    }
}
