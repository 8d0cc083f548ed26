//! What operators decided about who is who. Each decision is a fact: it has a number in the order of commits, is never
//! changed, and holds until it is withdrawn. What a later one takes from it is not written down; it follows from
//! their order, by [`reunion_model::decision::standings`].

use std::collections::HashSet;

use reunion_model::decision::in_force;
use reunion_model::limits::DECISION_RECORDS_MAX;
use reunion_model::{Decision, DecisionId, DecisionKind, DecisionSource, RecordKey};
use sqlx::AssertSqlSafe;

use crate::Ledger;
use crate::error::{LedgerError, Result};
use crate::sql::{Row, Tx, args, is_duplicate};

/// A decision to record.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// What is decided. Its id is random; no record is on both sides, and at most [`DECISION_RECORDS_MAX`] are on
    /// both together.
    pub decision: Decision,
    /// What led to it.
    pub source: DecisionSource,
    /// The score of the pair that it is about, in thousandths of a bit for one person; none where it had none.
    pub weight_millibits: Option<i64>,
    /// When.
    pub made_us: i64,
    /// Who decided.
    pub made_by: String,
    /// Why, in words that hold no phone number.
    pub why: String,
    /// The name of the command, for the audit.
    pub what: String,
    /// Whom it is about, for the audit.
    pub subject: String,
}

/// A decision as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRecord {
    /// Its number among the facts.
    pub seq: u64,
    /// What was decided.
    pub decision: Decision,
    /// What led to it.
    pub source: DecisionSource,
    /// The score of the pair that it is about, in thousandths of a bit for one person.
    pub weight_millibits: Option<i64>,
    /// When.
    pub made_us: i64,
    /// Who decided.
    pub made_by: String,
    /// Why.
    pub why: String,
    /// How it was withdrawn, if it was.
    pub withdrawn: Option<Withdrawal>,
}

/// How a decision was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawal {
    /// Its number among the facts.
    pub seq: u64,
    /// When.
    pub at_us: i64,
    /// Who withdrew it.
    pub who: String,
    /// Why.
    pub why: String,
}

const DECISION: &str = "select decision_id, kind, left_records, right_records, seq, source, made_us, made_by, why, \
     lifted_seq, lifted_us, lifted_by, lifted_why, weight_millibits from decisions";

impl Ledger {
    /// Records decisions that belong together, all or none, in their order. They hold from the next run on.
    ///
    /// # Errors
    /// [`LedgerError::NoDecision`] where a side is empty, a record is on both, or there are too many;
    /// [`LedgerError::Exists`] where the id is taken.
    pub async fn decide(&self, new: &[NewDecision]) -> Result<()> {
        new.iter().try_for_each(|new| check(&new.decision))?;
        let mut tx = self.store.write("record a decision").await?;
        for new in new {
            tx.decide(new).await?;
            tx.audit(new.made_us, &new.made_by, &new.what, &new.subject, &new.why).await?;
        }
        tx.commit().await
    }

    /// Withdraws a decision: from the next run on it is as if it had never been made. False where it was withdrawn
    /// before. `subject` says whom it is about, for the audit.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`].
    pub async fn withdraw(&self, id: DecisionId, subject: &str, who: &str, why: &str, now_us: i64) -> Result<bool> {
        let mut tx = self.store.write("withdraw a decision").await?;
        let seq = tx.raise("facts", 1).await?;
        let sql = "update decisions set lifted_seq = $2, lifted_us = $3, lifted_by = $4, lifted_why = $5 \
             where decision_id = $1 and lifted_seq is null";
        if tx.execute(sql, args![id, seq, now_us, who, why]).await? == 0 {
            let known = tx.row("select seq from decisions where decision_id = $1", args![id], |row| row.int(0)).await?;
            return match known {
                Some(_) => Ok(false),
                None => Err(LedgerError::NotFound { what: "decision", name: id.to_string() }),
            };
        }
        tx.audit(now_us, who, "members undo", subject, why).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Every decision that was ever made, in the order in which they were.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn decisions(&self) -> Result<Vec<DecisionRecord>> {
        let mut tx = self.store.read("list decisions").await?;
        tx.rows(AssertSqlSafe(format!("{DECISION} order by seq")), args![], read_record).await
    }

    /// The records of decisions that were made or withdrawn after the fact of this number, each once, sorted: those
    /// whose member may be another though no row changed.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn decided_since(&self, seq: u64) -> Result<Vec<RecordKey>> {
        let mut tx = self.store.read("see what was decided since").await?;
        let sql = format!("{DECISION} where seq > $1 or lifted_seq > $1");
        let decisions = tx.rows(AssertSqlSafe(sql), args![seq], read_decision).await?;
        let mut records: Vec<RecordKey> = decisions.iter().flat_map(Decision::records).collect();
        records.sort_unstable();
        records.dedup();
        Ok(records)
    }
}

impl Tx {
    async fn decide(&mut self, new: &NewDecision) -> Result<()> {
        let seq = self.raise("facts", 1).await?;
        let Decision { id, kind, left, right } = &new.decision;
        let sql = "insert into decisions (seq, decision_id, kind, left_records, right_records, source, made_us, made_by, why, \
             weight_millibits) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        let (source, weight) = (new.source.name(), new.weight_millibits);
        let values = args![seq, *id, kind.name(), &left[..], &right[..], source, new.made_us, &new.made_by, &new.why, weight];
        self.execute(sql, values)
            .await
            .map_err(|error| if is_duplicate(&error) { LedgerError::Exists { what: "decision", name: id.to_string() } } else { error })?;
        Ok(())
    }

    /// What holds of all decisions that were not withdrawn.
    pub async fn decisions_in_force(&mut self) -> Result<Vec<Decision>> {
        let sql = format!("{DECISION} where lifted_seq is null order by seq");
        Ok(in_force(&self.rows(AssertSqlSafe(sql), args![], read_decision).await?))
    }
}

/// Whether a decision says something, and of two groups.
fn check(decision: &Decision) -> Result<()> {
    let Decision { left, right, .. } = decision;
    let distinct: HashSet<RecordKey> = decision.records().collect();
    let records = left.len() + right.len();
    let wrong = if left.is_empty() || right.is_empty() {
        "one of its groups has no record".to_owned()
    } else if distinct.len() < records {
        "a record is named twice".to_owned()
    } else if records > DECISION_RECORDS_MAX {
        format!("it names {records} records, and at most {DECISION_RECORDS_MAX} are allowed")
    } else {
        return Ok(());
    };
    Err(LedgerError::NoDecision(wrong))
}

fn read_decision(row: &Row) -> Result<Decision> {
    Ok(Decision {
        id: row.id(0)?,
        kind: row.word(1, "a decision's kind", DecisionKind::from_name)?,
        left: row.ids_in_a_row(2)?,
        right: row.ids_in_a_row(3)?,
    })
}

fn read_record(row: &Row) -> Result<DecisionRecord> {
    let withdrawn = match row.unsigned_or_null(9)? {
        None => None,
        Some(seq) => Some(Withdrawal { seq, at_us: row.int(10)?, who: row.text(11)?, why: row.text(12)? }),
    };
    Ok(DecisionRecord {
        seq: row.unsigned(4)?,
        decision: read_decision(row)?,
        source: row.word(5, "a decision's source", DecisionSource::from_name)?,
        weight_millibits: row.int_or_null(13)?,
        made_us: row.int(6)?,
        made_by: row.text(7)?,
        why: row.text(8)?,
        withdrawn,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(left: &[u128], right: &[u128]) -> Decision {
        let keys = |records: &[u128]| records.iter().map(|record| RecordKey::from_u128(*record)).collect();
        Decision { id: DecisionId([1; 16]), kind: DecisionKind::Same, left: keys(left), right: keys(right) }
    }

    #[test]
    fn what_says_nothing_of_two_groups_is_no_decision() {
        assert!(check(&decision(&[1], &[2, 3])).is_ok());
        let many: Vec<u128> = (1..=DECISION_RECORDS_MAX as u128).collect();
        assert!(check(&decision(&[0], &many[1..])).is_ok());
        let said = |left: &[u128], right: &[u128]| check(&decision(left, right)).unwrap_err().to_string();
        assert!(said(&[], &[1]).contains("no record") && said(&[1], &[]).contains("no record"));
        assert!(said(&[1, 2], &[3, 1]).contains("twice") && said(&[1, 1], &[2]).contains("twice"));
        assert!(said(&[0], &many).contains("1001 records"));
    }
}
