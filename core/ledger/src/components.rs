//! Sources and campaigns that have committed state, so that one that vanishes from the config is
//! noticed, and one that is renamed keeps what it had.

use reunion_model::{Gate, TaskId, TaskState};

use crate::error::{LedgerError, Result};
use crate::sql::args;
use crate::tasks::Move;
use crate::{Lease, Ledger};

/// A kind of component that has state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComponentKind {
    /// Has records.
    Source,
    /// Has tasks, arms and a seed.
    Campaign,
}

impl ComponentKind {
    /// The name in the ledger and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Campaign => "campaign",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Source, Self::Campaign].into_iter().find(|kind| kind.name() == name)
    }
}

/// A component that a generation was committed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Source or campaign.
    pub kind: ComponentKind,
    /// Its name in the config.
    pub name: String,
    /// A campaign's seed for the control group. The first one that is stored stays.
    pub seed: Option<[u8; 16]>,
}

/// What the ledger knows of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentState {
    /// Source or campaign.
    pub kind: ComponentKind,
    /// Its name.
    pub name: String,
    /// The name that it had first.
    pub origin: String,
    /// A campaign's seed.
    pub seed: Option<[u8; 16]>,
    /// The clock of its first commit.
    pub since_us: i64,
    /// When an operator retired it.
    pub retired_us: Option<i64>,
}

impl Ledger {
    /// Every component that was ever committed, by kind and name.
    ///
    /// # Errors
    /// [`LedgerError::Store`].
    pub async fn components(&self) -> Result<Vec<ComponentState>> {
        let mut tx = self.store.read("list sources and campaigns").await?;
        let read = |row: &crate::sql::Row| {
            Ok(ComponentState {
                kind: row.word(0, "a component's kind", ComponentKind::from_name)?,
                name: row.text(1)?,
                origin: row.text(2)?,
                seed: row.id_or_null(3)?,
                since_us: row.int(4)?,
                retired_us: row.int_or_null(5)?,
            })
        };
        let mut all = tx.rows("select kind, name, origin, seed, since_us, retired_us from components", args![], read).await?;
        all.sort_by(|a, b| (a.kind.name(), &a.name).cmp(&(b.kind.name(), &b.name)));
        Ok(all)
    }

    /// Gives a component's state to a new name: a source's pulls; a campaign's seed, arms and tasks.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], [`LedgerError::Exists`] where the new name has state of its own,
    /// [`LedgerError::FenceLost`].
    pub async fn rename(&self, lease: &Lease, kind: ComponentKind, old: &str, new: &str, who: &str, now_us: i64) -> Result<()> {
        let mut tx = self.store.write("rename a component").await?;
        tx.hold(lease).await?;
        let taken = tx.row("select since_us from components where kind = $1 and name = $2", args![kind.name(), new], |row| row.int(0));
        if taken.await?.is_some() {
            return Err(LedgerError::Exists { what: kind.name(), name: new.into() });
        }
        if tx.execute("update components set name = $3 where kind = $1 and name = $2", args![kind.name(), old, new]).await? == 0 {
            return Err(LedgerError::NotFound { what: kind.name(), name: old.into() });
        }
        let moves: &[&'static str] = match kind {
            ComponentKind::Source => &["update pulls set source = $2 where source = $1"],
            ComponentKind::Campaign => {
                &["update arms set campaign = $2 where campaign = $1", "update tasks set campaign = $2 where campaign = $1"]
            }
        };
        for sql in moves {
            tx.execute(*sql, args![old, new]).await?;
        }
        tx.audit(now_us, who, "rename", &format!("{} {old}", kind.name()), &format!("now {new}")).await?;
        tx.commit().await
    }

    /// Notes that a component is gone for good. A campaign's open tasks are cancelled; a source's pulls
    /// that are in no generation are dropped, and their files become orphans.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`], [`LedgerError::FenceLost`].
    pub async fn retire(&self, lease: &Lease, kind: ComponentKind, name: &str, who: &str, now_us: i64) -> Result<()> {
        let mut tx = self.store.write("retire a component").await?;
        tx.hold(lease).await?;
        let sql = "update components set retired_us = $3 where kind = $1 and name = $2 and retired_us is null";
        if tx.execute(sql, args![kind.name(), name, now_us]).await? == 0 {
            return Err(LedgerError::NotFound { what: kind.name(), name: name.into() });
        }
        match kind {
            ComponentKind::Source => {
                let unconsumed = "select pull_id from pulls where source = $1 and consumed is null";
                tx.execute(sqlx::AssertSqlSafe(format!("delete from segments where pull_id in ({unconsumed})")), args![name]).await?;
                tx.execute("update pulls set state = 'dropped', resume = null where source = $1 and consumed is null", args![name]).await?;
            }
            ComponentKind::Campaign => {
                let tasks = tx.rows("select task_id from tasks where campaign = $1", args![name], |row| row.id::<TaskId>(0)).await?;
                let moves = tasks.into_iter().map(|task_id| Move::because(task_id, Gate::CampaignOff.code())).collect();
                tx.move_tasks(TaskState::Cancelled, false, moves, now_us).await?;
            }
        }
        tx.audit(now_us, who, "retire", &format!("{} {name}", kind.name()), "").await?;
        tx.commit().await
    }
}
