//! The people lease: who may pull, decide and commit.
//!
//! With SQLite a lock on a file of the state keeps others out, and the ledger only raises the fence
//! and notes who came. With PostgreSQL the row is the lease: it has [`LEASE_TTL`] to live and is
//! renewed, by the database's clock, so that machines need not agree on the time.

use std::fmt;
use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use crate::Ledger;
use crate::error::{LedgerError, Result};
use crate::sql::{Args, Row, Tx, args};

/// How long a lease that is not renewed stays its holder's.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often a holder renews it.
pub const LEASE_RENEW: Duration = Duration::from_secs(5);
/// How often somebody who waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// The process there.
    pub pid: u32,
    /// When it took the lease.
    pub since_us: i64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, since {} s after the epoch", self.pid, self.host, self.since_us / 1_000_000)
    }
}

/// Proof of having taken the lease. It may have been lost since; every write that needs it finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The number of this taking: greater than that of every earlier one.
    pub fence: u64,
}

impl Ledger {
    /// Takes the lease and raises the fence. Runs that an earlier holder left unfinished become
    /// `interrupted`. On PostgreSQL a live holder is waited for as long as `wait`; on SQLite the
    /// caller holds the state's file lock, and nobody needs to be waited for.
    ///
    /// # Errors
    /// [`LedgerError::LeaseHeld`] where somebody else still holds it after `wait`.
    pub async fn take_lease(&self, holder: &Holder, wait: Duration) -> Result<Lease> {
        let give_up = Instant::now() + wait;
        loop {
            match self.try_take_lease(holder).await? {
                Ok(lease) => return Ok(lease),
                Err(other) if Instant::now() >= give_up => return Err(LedgerError::LeaseHeld(other)),
                Err(_) => sleep(LOOK_AGAIN.min(give_up - Instant::now())).await,
            }
        }
    }

    async fn try_take_lease(&self, holder: &Holder) -> Result<std::result::Result<Lease, Holder>> {
        let mut tx = self.store.write("take the lease").await?;
        let (now, lock) = (tx.clock(), tx.for_update());
        let live = if tx.is_postgres() { "host is not null and expires_us > " } else { "1 = 0 and 0 < " };
        let held =
            format!("select host, pid, since_us, cast(case when {live} {now} then 1 else 0 end as bigint) from lease where id = 1{lock}");
        let other = tx.row(AssertSqlSafe(held), args![], |row| Ok(if row.flag(3)? { read_holder(row)? } else { None }));
        if let Some(other) = other.await?.flatten() {
            return Ok(Err(other));
        }
        let take = format!(
            "update lease set fence = fence + 1, host = $1, pid = $2, since_us = $3, expires_us = {now} + $4 where id = 1 returning fence"
        );
        let values = args![&holder.host, holder.pid, holder.since_us, LEASE_TTL.as_micros() as i64];
        let fence = tx.row(AssertSqlSafe(take), values, |row| row.unsigned(0)).await?;
        let fence = fence.ok_or_else(|| LedgerError::NotFound { what: "row of", name: "the lease".into() })?;
        tx.execute("update runs set state = 'interrupted' where state = 'running' and fence < $1", args![fence]).await?;
        tx.commit().await?;
        Ok(Ok(Lease { fence }))
    }

    /// Gives the lease another [`LEASE_TTL`] to live.
    ///
    /// # Errors
    /// [`LedgerError::FenceLost`].
    pub async fn renew_lease(&self, lease: &Lease) -> Result<()> {
        let tx = self.store.write("renew the lease").await?;
        let sql = format!("update lease set expires_us = {} + $2 where id = 1 and fence = $1 and host is not null", tx.clock());
        self.write_lease(tx, lease, &sql, args![lease.fence, LEASE_TTL.as_micros() as i64]).await
    }

    /// Lets the next one take the lease at once.
    ///
    /// # Errors
    /// [`LedgerError::FenceLost`].
    pub async fn release_lease(&self, lease: &Lease) -> Result<()> {
        let tx = self.store.write("release the lease").await?;
        let sql = "update lease set host = null, pid = null, since_us = null, expires_us = null where id = 1 and fence = $1";
        self.write_lease(tx, lease, sql, args![lease.fence]).await
    }

    async fn write_lease(&self, mut tx: Tx, lease: &Lease, sql: &str, args: Args) -> Result<()> {
        if tx.execute(AssertSqlSafe(sql.to_owned()), args).await? == 0 {
            let now = tx.fence().await?;
            return Err(LedgerError::FenceLost { mine: lease.fence, now });
        }
        tx.commit().await
    }

    /// Who took the lease last and has not released it. On PostgreSQL it may have expired since.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn holder(&self) -> Result<Option<Holder>> {
        let mut tx = self.store.read("see who holds the lease").await?;
        Ok(tx.row("select host, pid, since_us from lease where id = 1", args![], read_holder).await?.flatten())
    }
}

impl Tx {
    /// Makes sure that the lease still holds, and that it cannot be taken before this transaction ends.
    pub async fn hold(&mut self, lease: &Lease) -> Result<()> {
        let now = self.fence().await?;
        if now != lease.fence {
            return Err(LedgerError::FenceLost { mine: lease.fence, now });
        }
        Ok(())
    }

    async fn fence(&mut self) -> Result<u64> {
        let sql = format!("select fence from lease where id = 1{}", self.for_share());
        let fence = self.row(AssertSqlSafe(sql), args![], |row| row.unsigned(0)).await?;
        fence.ok_or_else(|| LedgerError::NotFound { what: "row of", name: "the lease".into() })
    }
}

fn read_holder(row: &Row) -> Result<Option<Holder>> {
    let Some(host) = row.text_or_null(0)? else { return Ok(None) };
    Ok(Some(Holder { host, pid: row.small(1)?, since_us: row.int(2)? }))
}
