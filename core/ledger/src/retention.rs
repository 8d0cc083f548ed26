//! What is forgotten: rows that nobody needs who goes back to the oldest generation that is kept.

use crate::error::Result;
use crate::sql::args;
use crate::{Lease, Ledger};

impl Ledger {
    /// Forgets the generations before `oldest`, the pulls that had been taken in by then, and those that
    /// were dropped. The last pull of a source that ended stays: the next one begins from its state. So does
    /// its last snapshot, from which the next sweep is counted. Gives the number of pulls that are gone.
    ///
    /// # Errors
    /// [`crate::LedgerError::FenceLost`].
    pub async fn forget_before(&self, lease: &Lease, oldest: u64) -> Result<u64> {
        let mut tx = self.store.write("forget old pulls").await?;
        tx.hold(lease).await?;
        // A rollback makes pulls of later generations pending again, and needs their segments.
        let segments = "delete from segments where pull_id in (select pull_id from pulls where consumed <= $1 or state = 'dropped')";
        tx.execute(segments, args![oldest]).await?;
        let pulls = "delete from pulls where state = 'dropped' or (consumed <= $1 and number < \
             (select max(last.number) from pulls last where last.source = pulls.source and last.state = 'ended') \
             and not (mode = 'snapshot' and number = (select max(last.number) from pulls last where last.source = pulls.source \
             and last.state = 'ended' and last.mode = 'snapshot')))";
        let forgotten = tx.execute(pulls, args![oldest]).await?;
        tx.execute("delete from generations where generation < $1", args![oldest]).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}
