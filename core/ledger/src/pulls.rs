//! Pulls: readings of a source, their segments, and where each goes on.
//!
//! A pull is open until its end marker was seen, then waits for a generation to take it in. The
//! state that a source is resumed from is committed together with the segment that it covers, so
//! neither can run ahead of the other.

use reunion_model::PullId;
use reunion_model::plugin::ReadMode;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::error::{LedgerError, Result};
use crate::seal::{RESUME, document, parse};
use crate::sql::{Row, Tx, args};
use crate::{Lease, Ledger};

/// A piece of a pull: rows in files, written and made durable before it is committed here.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// The pull that it belongs to.
    pub pull_id: PullId,
    /// 0 for the first one of the pull, then one more each.
    pub seq: u32,
    /// Rows of the pull that it covers, whatever became of them.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files, relative to the folder of people's files.
    pub files: Vec<String>,
    /// What the writer of the files wants to be given back with them.
    pub document: Value,
}

/// One reading of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Pull {
    /// Its id.
    pub pull_id: PullId,
    /// The source's name.
    pub source: String,
    /// How it reads.
    pub mode: ReadMode,
    /// When it began, or the last that confirmed it.
    pub started_us: i64,
    /// When its end marker was seen, or that of the last that confirmed it.
    pub ended_us: Option<i64>,
    /// When the data was true.
    pub as_of_us: Option<i64>,
    /// Where it goes on: covers exactly its segments.
    pub state: Option<Value>,
    /// The generation that took it in.
    pub consumed: Option<u64>,
    /// Its segments in order; left empty for a pull that is in a generation.
    pub segments: Vec<Segment>,
}

/// What the ledger knows of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceState {
    /// The pull that has not come to its end.
    pub open: Option<Pull>,
    /// Pulls that ended and are in no generation, oldest first.
    pub pending: Vec<Pull>,
    /// The last pull that ended: the next one begins from its state.
    pub last: Option<Pull>,
    /// When the last snapshot that ended began; where there was none, the first pull that ended of those that
    /// the ledger knows of: it read everything that there was.
    pub read_whole_us: Option<i64>,
}

const COLUMNS: &str = "select pull_id, source, mode, started_us, ended_us, as_of_us, resume, consumed, state from pulls";

impl Ledger {
    /// Begins a pull.
    ///
    /// # Errors
    /// [`LedgerError::Exists`] where one of the source is open: go on with it, end it, or drop it.
    /// [`LedgerError::FenceLost`].
    pub async fn begin_pull(&self, lease: &Lease, source: &str, pull_id: PullId, mode: ReadMode, now_us: i64) -> Result<()> {
        let mut tx = self.store.write("begin a pull").await?;
        tx.hold(lease).await?;
        let open = tx.row("select pull_id from pulls where source = $1 and state = 'open'", args![source], |row| row.id::<PullId>(0));
        if let Some(open) = open.await? {
            return Err(LedgerError::Exists { what: "open pull", name: format!("{open} of {source}") });
        }
        let sql = "insert into pulls (pull_id, source, number, mode, state, started_us, segments) \
             values ($1, $2, (select coalesce(max(number), 0) + 1 from pulls where source = $2), $3, 'open', $4, 0)";
        tx.execute(sql, args![pull_id, source, mode_name(mode), now_us]).await?;
        tx.commit().await
    }

    /// Commits a segment together with the state that the source goes on from after it.
    ///
    /// # Errors
    /// [`LedgerError::SegmentOrder`] where it does not follow the last one, [`LedgerError::NotFound`]
    /// where the pull is not open, [`LedgerError::FenceLost`], [`LedgerError::TooLarge`].
    pub async fn commit_segment(&self, lease: &Lease, segment: &Segment, state: &Value) -> Result<()> {
        let resume = RESUME.seal(&self.keys, &segment.pull_id.0, state)?;
        let files = document("a segment's list of files", &segment.files.clone().into())?;
        let detail = document("a segment's document", &segment.document)?;
        let mut tx = self.store.write("commit a segment").await?;
        tx.hold(lease).await?;
        let expected = tx.open_pull(segment.pull_id).await?;
        if segment.seq != expected {
            return Err(LedgerError::SegmentOrder { pull: segment.pull_id.to_string(), given: segment.seq, expected });
        }
        let sql = "insert into segments (pull_id, seq, fence, row_count, bytes, files, document) values ($1, $2, $3, $4, $5, $6, $7)";
        tx.execute(sql, args![segment.pull_id, segment.seq, lease.fence, segment.rows, segment.bytes, files, detail]).await?;
        tx.execute("update pulls set segments = segments + 1, resume = $2 where pull_id = $1", args![segment.pull_id, resume]).await?;
        tx.commit().await
    }

    /// Notes that a pull's end marker was seen. `state` is where the next pull begins, if it came
    /// after the last segment; `as_of_us` is when the data was true.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where the pull is not open, [`LedgerError::FenceLost`].
    pub async fn end_pull(&self, lease: &Lease, pull_id: PullId, state: Option<&Value>, as_of_us: Option<i64>, now_us: i64) -> Result<()> {
        let resume = state.map(|state| RESUME.seal(&self.keys, &pull_id.0, state)).transpose()?;
        let mut tx = self.store.write("end a pull").await?;
        tx.hold(lease).await?;
        tx.open_pull(pull_id).await?;
        let sql = "update pulls set state = 'ended', ended_us = $2, as_of_us = $3, resume = coalesce($4, resume) where pull_id = $1";
        tx.execute(sql, args![pull_id, now_us, as_of_us, resume]).await?;
        tx.commit().await
    }

    /// Ends a pull that has read nothing, because everything is as the last one that ended had found it: nothing
    /// is left of it but that the other counts as read when this one was. `as_of_us` is when the data was true.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where the pull is not open, or none of its source has ended;
    /// [`LedgerError::FenceLost`].
    pub async fn confirm_last_pull(&self, lease: &Lease, pull_id: PullId, as_of_us: Option<i64>, now_us: i64) -> Result<()> {
        let mut tx = self.store.write("confirm a pull").await?;
        tx.hold(lease).await?;
        tx.open_pull(pull_id).await?;
        let sql = "select l.pull_id, o.started_us from pulls o join pulls l on l.source = o.source and l.state = 'ended' \
             where o.pull_id = $1 order by l.number desc limit 1";
        let found = tx.row(sql, args![pull_id], |row| Ok((row.id::<PullId>(0)?, row.int(1)?))).await?;
        let (last, started_us) = found.ok_or_else(|| LedgerError::NotFound { what: "pull to confirm", name: pull_id.to_string() })?;
        let sql = "update pulls set started_us = $2, ended_us = $3, as_of_us = $4 where pull_id = $1";
        tx.execute(sql, args![last, started_us, now_us, as_of_us]).await?;
        tx.execute("delete from pulls where pull_id = $1", args![pull_id]).await?;
        tx.commit().await
    }

    /// Gives up a pull that is in no generation, because what it read is not true any more. Returns
    /// the files of its segments, which may be deleted now.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`] where there is none such, [`LedgerError::FenceLost`].
    pub async fn drop_pull(&self, lease: &Lease, pull_id: PullId) -> Result<Vec<String>> {
        let mut tx = self.store.write("drop a pull").await?;
        tx.hold(lease).await?;
        let files = tx.files("p.pull_id = $1", args![pull_id]).await?;
        tx.execute(
            "delete from segments where pull_id in (select pull_id from pulls where pull_id = $1 and consumed is null)",
            args![pull_id],
        )
        .await?;
        let sql = "update pulls set state = 'dropped', resume = null where pull_id = $1 and consumed is null and state <> 'dropped'";
        if tx.execute(sql, args![pull_id]).await? == 0 {
            return Err(LedgerError::NotFound { what: "pull to drop", name: pull_id.to_string() });
        }
        tx.commit().await?;
        Ok(files)
    }

    /// Where a source stands: its open pull, those that wait for a generation, and the last that ended.
    ///
    /// # Errors
    /// [`LedgerError::Store`], [`LedgerError::Sealed`], [`LedgerError::Damaged`].
    pub async fn source_state(&self, source: &str) -> Result<SourceState> {
        let mut tx = self.store.read("read where a source stands").await?;
        let sql = format!("{COLUMNS} where source = $1 and consumed is null and state in ('open', 'ended') order by number");
        let waiting = tx.rows(AssertSqlSafe(sql), args![source], |row| self.read_pull(row)).await?;
        let sql = format!("{COLUMNS} where source = $1 and state = 'ended' order by number desc limit 1");
        let last = tx.row(AssertSqlSafe(sql), args![source], |row| self.read_pull(row)).await?.map(|(pull, _)| pull);
        let sql = "select coalesce(max(case when mode = 'snapshot' then started_us end), min(started_us)) from pulls \
             where source = $1 and state = 'ended'";
        let read_whole_us = tx.row(sql, args![source], |row| row.int_or_null(0)).await?.flatten();
        let mut state = SourceState { open: None, pending: Vec::new(), last, read_whole_us };
        for (mut pull, is_open) in waiting {
            let sql = "select pull_id, seq, row_count, bytes, files, document from segments where pull_id = $1 order by seq";
            pull.segments = tx.rows(sql, args![pull.pull_id], read_segment).await?;
            if is_open {
                state.open = Some(pull);
            } else {
                state.pending.push(pull);
            }
        }
        Ok(state)
    }

    /// Every segment that is in no generation: what its pull has read so far, whether it ended or not.
    ///
    /// # Errors
    /// [`LedgerError::Store`], [`LedgerError::Damaged`].
    pub async fn pending_segments(&self) -> Result<Vec<Segment>> {
        let mut tx = self.store.read("list segments").await?;
        let sql = "select s.pull_id, s.seq, s.row_count, s.bytes, s.files, s.document from segments s join pulls p on p.pull_id = s.pull_id \
             where p.consumed is null and p.state <> 'dropped' order by s.pull_id, s.seq";
        tx.rows(sql, args![], read_segment).await
    }

    fn read_pull(&self, row: &Row) -> Result<(Pull, bool)> {
        let pull_id: PullId = row.id(0)?;
        let resume = row.bytes_or_null(6)?;
        let pull = Pull {
            pull_id,
            source: row.text(1)?,
            mode: row.word(2, "a pull's mode", mode_from_name)?,
            started_us: row.int(3)?,
            ended_us: row.int_or_null(4)?,
            as_of_us: row.int_or_null(5)?,
            state: resume.map(|resume| RESUME.open(&self.keys, &pull_id.0, &resume)).transpose()?,
            consumed: row.unsigned_or_null(7)?,
            segments: Vec::new(),
        };
        Ok((pull, row.text(8)? == "open"))
    }
}

impl Tx {
    /// The number of the next segment of an open pull.
    async fn open_pull(&mut self, pull_id: PullId) -> Result<u32> {
        let sql = "select segments from pulls where pull_id = $1 and state = 'open'";
        let next = self.row(sql, args![pull_id], |row| row.small(0)).await?;
        next.ok_or_else(|| LedgerError::NotFound { what: "open pull", name: pull_id.to_string() })
    }

    /// The files of segments of pulls `p` that are in no generation.
    async fn files(&mut self, condition: &str, args: crate::sql::Args) -> Result<Vec<String>> {
        let sql = format!(
            "select s.files from segments s join pulls p on p.pull_id = s.pull_id where p.consumed is null and {condition} \
             order by s.pull_id, s.seq"
        );
        let files = self.rows(AssertSqlSafe(sql), args, |row| parse::<Vec<String>>("a segment's list of files", &row.text(0)?));
        Ok(files.await?.concat())
    }
}

fn read_segment(row: &Row) -> Result<Segment> {
    Ok(Segment {
        pull_id: row.id(0)?,
        seq: row.small(1)?,
        rows: row.unsigned(2)?,
        bytes: row.unsigned(3)?,
        files: parse("a segment's list of files", &row.text(4)?)?,
        document: parse("a segment's document", &row.text(5)?)?,
    })
}

const fn mode_name(mode: ReadMode) -> &'static str {
    match mode {
        ReadMode::Incremental => "incremental",
        ReadMode::Snapshot => "snapshot",
    }
}

fn mode_from_name(name: &str) -> Option<ReadMode> {
    [ReadMode::Incremental, ReadMode::Snapshot].into_iter().find(|mode| mode_name(*mode) == name)
}
