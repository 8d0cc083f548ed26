//! What an operator accepted once, so that a guard lets it pass.

use crate::Ledger;
use crate::error::Result;
use crate::sql::args;

/// Something that a guard refused and an operator then accepted, until a generation uses it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The source that it is about.
    pub source: String,
    /// What the guard guards.
    pub what: String,
    /// The figure that was accepted; a greater one is refused again.
    pub figure: i64,
}

impl Ledger {
    /// Accepts for one generation what a guard refused.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn accept_once(&self, acceptance: &Acceptance, who: &str, now_us: i64) -> Result<()> {
        let Acceptance { source, what, figure } = acceptance;
        let mut tx = self.store.write("accept a figure").await?;
        let sql = "insert into acceptances (source, what, figure, who, at_us) values ($1, $2, $3, $4, $5) \
             on conflict (source, what) do update set figure = excluded.figure, who = excluded.who, at_us = excluded.at_us";
        tx.execute(sql, args![source, what, *figure, who, now_us]).await?;
        tx.audit(now_us, who, "accept", source, &format!("{what}: {figure}")).await?;
        tx.commit().await
    }

    /// What is accepted now. A commit that makes use of it names it, and it is gone.
    ///
    /// # Errors
    /// [`crate::LedgerError::Store`].
    pub async fn acceptances(&self) -> Result<Vec<Acceptance>> {
        let mut tx = self.store.read("list what was accepted").await?;
        tx.rows("select source, what, figure from acceptances", args![], |row| {
            Ok(Acceptance { source: row.text(0)?, what: row.text(1)?, figure: row.int(2)? })
        })
        .await
    }
}
