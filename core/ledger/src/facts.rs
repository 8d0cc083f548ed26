//! Facts: suppressions and links, each with its number in the order of commits, and the audit of what
//! operators did. Decisions about who is who, facts too, have a file of their own.

use reunion_model::task::Outcome;
use reunion_model::{ContactId, Decision, Phone, TaskId};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::Result;
use crate::sql::{Args, Row, Tx, args};

/// A contact point that is not to be contacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// Its number among the facts.
    pub seq: u64,
    /// The contact point.
    pub contact: ContactId,
    /// Its phone as people may see it: `138****8000`.
    pub phone_masked: String,
    /// Why, as whoever asked for it put it, or an outcome's name.
    pub reason: String,
    /// Where it came from: a channel's name, or `operator`.
    pub source: String,
    /// Since when.
    pub since_us: i64,
    /// Until when; for good where there is none.
    pub until_us: Option<i64>,
    /// Who recorded it.
    pub set_by: String,
}

impl Suppression {
    /// Whether it speaks of the number alone, and not of the person: a wrong number says nothing of the member's others.
    pub fn is_of_the_number_alone(&self) -> bool {
        is_of_the_number_alone(&self.reason)
    }
}

impl NewSuppression {
    /// See [`Suppression::is_of_the_number_alone`].
    pub fn is_of_the_number_alone(&self) -> bool {
        is_of_the_number_alone(&self.reason)
    }
}

fn is_of_the_number_alone(reason: &str) -> bool {
    reason == Outcome::WrongNumber.name()
}

/// A suppression to record.
#[derive(Debug, Clone)]
pub struct NewSuppression {
    /// The phone. Stored as a keyed hash, and masked.
    pub phone: Phone,
    /// Why.
    pub reason: String,
    /// Where it came from: a channel's name, or `operator`.
    pub source: String,
    /// Since when.
    pub since_us: i64,
    /// Until when; for good where there is none.
    pub until_us: Option<i64>,
    /// Who records it.
    pub set_by: String,
}

/// A contact point that is linked in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number among the facts.
    pub seq: u64,
    /// The contact point.
    pub contact: ContactId,
    /// The channel.
    pub channel: String,
    /// Since when.
    pub since_us: i64,
    /// The task that brought it about.
    pub task_id: Option<TaskId>,
}

/// All facts that hold as of one number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The number of the last fact that is taken into account.
    pub seq: u64,
    /// Who is not to be contacted. `until_us` is the reader's to compare with the run's clock.
    pub suppressions: Vec<Suppression>,
    /// Who is linked.
    pub links: Vec<Link>,
    /// What operators decided about who is who, as far as no later decision has taken it back; of one that was cut by
    /// a later one several parts, under its id.
    pub decisions: Vec<Decision>,
}

/// Something that an operator did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// When.
    pub at_us: i64,
    /// Who.
    pub who: String,
    /// What, as the command's name.
    pub what: String,
    /// To what: a masked phone, a name, a filter.
    pub subject: String,
    /// Why, or with which result.
    pub why: String,
}

const SUPPRESSIONS: &str =
    "select seq, contact, phone_masked, reason, source, since_us, until_us, set_by from suppressions where lifted_seq is null";

impl Ledger {
    /// All facts, as of one moment.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn facts(&self) -> Result<Facts> {
        let mut tx = self.store.read("read the facts").await?;
        let seq = tx.row("select value from counters where name = $1", args!["facts"], |row| row.unsigned(0)).await?;
        let suppressions = tx.rows(AssertSqlSafe(format!("{SUPPRESSIONS} order by seq")), args![], read_suppression).await?;
        let sql = "select seq, contact, channel, since_us, task_id from links where lifted_seq is null order by seq";
        let links = tx.rows(sql, args![], read_link).await?;
        let decisions = tx.decisions_in_force().await?;
        Ok(Facts { seq: seq.unwrap_or_default(), suppressions, links, decisions })
    }

    /// Puts a phone on the suppression list. False where the same source gave the same reason before
    /// and the suppression holds as long.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn suppress(&self, new: &NewSuppression) -> Result<bool> {
        let contact = self.keys.lookup().contact(new.phone);
        let mut tx = self.store.write("suppress a phone").await?;
        let added = tx.suppress(contact, new).await?;
        if added {
            tx.audit(new.since_us, &new.set_by, "suppress add", &new.phone.to_string(), &new.reason).await?;
            tx.commit().await?;
        }
        Ok(added)
    }

    /// The suppression list, or what it says of one contact point, oldest first.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn suppressions(&self, contact: Option<ContactId>) -> Result<Vec<Suppression>> {
        let mut tx = self.store.read("list suppressions").await?;
        let (condition, args) = contact.map_or_else(|| ("", args![]), |contact| (" and contact = $1", args![contact]));
        tx.rows(AssertSqlSafe(format!("{SUPPRESSIONS}{condition} order by seq")), args, read_suppression).await
    }

    /// The suppressions that came after the fact of this number and hold, oldest first.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn suppressions_since(&self, seq: u64) -> Result<Vec<Suppression>> {
        let mut tx = self.store.read("list new suppressions").await?;
        tx.rows(AssertSqlSafe(format!("{SUPPRESSIONS} and seq > $1 order by seq")), args![seq], read_suppression).await
    }

    /// Takes a phone off the suppression list, whoever put it there. Returns how many entries there were.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn lift_suppressions(&self, phone: Phone, who: &str, why: &str, now_us: i64) -> Result<u64> {
        let contact = self.keys.lookup().contact(phone);
        let mut tx = self.store.write("lift a suppression").await?;
        let seq = tx.raise("facts", 1).await?;
        let sql = "update suppressions set lifted_seq = $2 where contact = $1 and lifted_seq is null";
        let lifted = tx.execute(sql, args![contact, seq]).await?;
        if lifted > 0 {
            tx.audit(now_us, who, "suppress rm", &phone.to_string(), why).await?;
            tx.commit().await?;
        }
        Ok(lifted)
    }

    /// What operators did, newest first.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn audit(&self, limit: u32) -> Result<Vec<Audit>> {
        let mut tx = self.store.read("read the audit").await?;
        let sql = "select at_us, who, what, subject, why from audit order by seq desc limit $1";
        let read =
            |row: &Row| Ok(Audit { at_us: row.int(0)?, who: row.text(1)?, what: row.text(2)?, subject: row.text(3)?, why: row.text(4)? });
        tx.rows(sql, args![limit], read).await
    }
}

impl Tx {
    /// Records a suppression; false where it holds already.
    pub async fn suppress(&mut self, contact: ContactId, new: &NewSuppression) -> Result<bool> {
        let seq = self.raise("facts", 1).await?;
        let sql = "select until_us from suppressions where contact = $1 and source = $2 and reason = $3 and lifted_seq is null";
        let there = self.rows(sql, args![contact, &new.source, &new.reason], |row| row.int_or_null(0)).await?;
        let end = |until: Option<i64>| until.unwrap_or(i64::MAX);
        if there.into_iter().any(|until| end(until) >= end(new.until_us)) {
            return Ok(false);
        }
        let sql = "insert into suppressions (seq, contact, phone_masked, reason, source, since_us, until_us, set_by) \
             values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let values = args![seq, contact, new.phone.to_string(), &new.reason, &new.source, new.since_us, new.until_us, &new.set_by];
        self.execute(sql, values).await?;
        Ok(true)
    }

    /// Records a link; false where it holds already.
    pub async fn link(&mut self, contact: ContactId, channel: &str, since_us: i64, task_id: TaskId) -> Result<bool> {
        let seq = self.raise("facts", 1).await?;
        let sql = "insert into links (seq, contact, channel, since_us, task_id) values ($1, $2, $3, $4, $5) on conflict do nothing";
        Ok(self.execute(sql, args![seq, contact, channel, since_us, task_id]).await? > 0)
    }

    /// Records what an operator did.
    pub async fn audit(&mut self, at_us: i64, who: &str, what: &str, subject: &str, why: &str) -> Result<()> {
        let seq = self.raise("audit", 1).await?;
        let values: Args = args![seq, at_us, who, what, subject, why];
        self.execute("insert into audit (seq, at_us, who, what, subject, why) values ($1, $2, $3, $4, $5, $6)", values).await?;
        Ok(())
    }
}

fn read_suppression(row: &Row) -> Result<Suppression> {
    Ok(Suppression {
        seq: row.unsigned(0)?,
        contact: row.id(1)?,
        phone_masked: row.text(2)?,
        reason: row.text(3)?,
        source: row.text(4)?,
        since_us: row.int(5)?,
        until_us: row.int_or_null(6)?,
        set_by: row.text(7)?,
    })
}

fn read_link(row: &Row) -> Result<Link> {
    Ok(Link { seq: row.unsigned(0)?, contact: row.id(1)?, channel: row.text(2)?, since_us: row.int(3)?, task_id: row.id_or_null(4)? })
}
