//! PostgreSQL: read by `COPY … TO STDOUT (FORMAT BINARY)`, which costs little more than what the server does
//! anyway; row by row it costs nearly twice as much.

use futures::StreamExt;
use reunion_sdk::arrow::array::RecordBatch;
use reunion_sdk::{Authority, ErrorClass, PluginError};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode, PgTypeKind};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions, Executor, SqlSafeStr, Statement, TypeInfo};

use super::{Sink, note_unfit};
use crate::columns::{Cells, Column, DECIMAL_PLACES, Kind, ROW_BYTES_MAX, Rows, no_type, too_large};
use crate::config::{Config, TlsMode};
use crate::failure::failed;
use crate::wait::Wait;

/// 2000-01-01, which PostgreSQL counts from, in what Arrow counts from.
const EPOCH_US: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;
/// Rows that are taken at once, at the most.
const ROWS_TOGETHER: usize = 64;
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

pub async fn connect(config: &Config) -> Result<PgConnection, PluginError> {
    let connecting = |error: sqlx::Error| failed("connecting", &error);
    let options: PgConnectOptions = config.url.as_deref().unwrap_or_default().parse().map_err(connecting)?;
    let timeout = format!("{}s", config.statement_timeout_secs);
    // The driver would look an address of IPv6 up by a name that has its brackets.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    let mut options = options
        .host(&host)
        .application_name("reunion")
        .options([("default_transaction_read_only", "on"), ("statement_timeout", timeout.as_str())])
        .statement_cache_capacity(0)
        .disable_statement_logging();
    if let Some(password) = &config.password {
        options = options.password(password.reveal());
    }
    // What the URL says stands unless the config says otherwise.
    options = match config.tls.mode {
        TlsMode::Prefer => options,
        TlsMode::Off => options.ssl_mode(PgSslMode::Disable),
        TlsMode::Require => options.ssl_mode(PgSslMode::Require),
        TlsMode::VerifyCa => options.ssl_mode(PgSslMode::VerifyCa),
        TlsMode::VerifyFull => options.ssl_mode(PgSslMode::VerifyFull),
    };
    // The driver reads the file only when a server has answered, takes one without a certificate for none at all, and its
    // errors name no key.
    if let Some(path) = &config.tls.ca {
        options = options.ssl_root_cert_from_pem(Authority::read(path, "tls.ca")?.pem);
    }
    let mut connection = options.connect().await.map_err(connecting)?;
    let zone = config.session_timezone.as_deref();
    // The driver asks for UTC. What the server goes by itself was written beside it when its folder was made.
    let set = sqlx::query("select set_config('TimeZone', coalesce($1, current_setting('log_timezone')), false)").bind(zone);
    set.execute(&mut connection).await.map_err(|error| match &error {
        sqlx::Error::Database(refused) if refused.code().as_deref() == Some("22023") => {
            PluginError::new(ErrorClass::InvalidConfig, format!("the server knows no timezone {:?}", zone.unwrap_or_default()))
                .key("session_timezone")
        }
        error => failed("setting the timezone", error),
    })?;
    Ok(connection)
}

pub async fn columns(connection: &mut PgConnection, query: &str) -> Result<Vec<Column>, PluginError> {
    let prepared = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await;
    let prepared = prepared.map_err(|error| failed("looking at the query", &error))?;
    let column = |column: &sqlx::postgres::PgColumn| {
        let (kind, as_text) = kind_of(column.type_info()).ok_or_else(|| no_type(column.name(), column.type_info().name()))?;
        Ok(Column { name: column.name().to_owned(), kind, as_text })
    };
    prepared.columns().iter().map(column).collect()
}

/// What a type becomes, and whether the server is asked for text.
fn kind_of(info: &sqlx::postgres::PgTypeInfo) -> Option<(Kind, bool)> {
    let plain = |kind| Some((kind, false));
    match info.oid().unwrap_or(Oid(0)).0 {
        16 => plain(Kind::Boolean),
        20 | 21 | 23 | 26 => plain(Kind::Integer),
        700 | 701 => plain(Kind::Float),
        1700 => plain(Kind::Decimal),
        1114 => plain(Kind::Moment),
        1184 => plain(Kind::Instant),
        1082 => plain(Kind::Day),
        18 | 19 | 25 | 1043 | 114 => plain(Kind::Text),
        // Padded with spaces, which a cast takes away.
        1042 => Some((Kind::Text, true)),
        // Of unknown type, as a literal is: text.
        705 => Some((Kind::Text, true)),
        17 => None,
        _ => match info.kind() {
            PgTypeKind::Simple | PgTypeKind::Enum(_) | PgTypeKind::Range(_) => Some((Kind::Text, true)),
            PgTypeKind::Domain(of) => kind_of(of),
            _ => None,
        },
    }
}

pub async fn read(
    connection: &mut PgConnection,
    sql: &str,
    columns: &[Column],
    wait: Wait<'_>,
    sink: &mut Sink<'_>,
) -> Result<(), PluginError> {
    let copy = format!("copy ({sql}) to stdout (format binary)");
    let broken = |error: sqlx::Error| failed(wait.doing, &error);
    let stream = wait.on(connection.copy_out_raw(&copy)).await?.map_err(broken)?;
    // The server sends each row by itself: what has come is taken together, since waiting costs as much as a row.
    let mut stream = stream.ready_chunks(ROWS_TOGETHER);
    let mut decoder = Decoder::new(columns);
    while let Some(rows) = wait.on(stream.next()).await? {
        for row in rows {
            decoder.take(&row.map_err(broken)?, sink)?;
        }
    }
    decoder.end(sink)
}

/// Makes batches of a binary copy, however it is cut.
struct Decoder {
    rows: Rows,
    /// What came and is not a whole row yet.
    pending: Vec<u8>,
    begun: bool,
    ended: bool,
}

/// What is left of the bytes of one row.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        self.take(2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> Option<i32> {
        self.take(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

fn not_understood() -> PluginError {
    PluginError::new(ErrorClass::InvalidData, "the server's copy is not of the format that it says it is")
        .hint("if something stands between Reunion and PostgreSQL, go past it")
}

impl Decoder {
    fn new(columns: &[Column]) -> Self {
        Self { rows: Rows::new(columns), pending: Vec::new(), begun: false, ended: false }
    }

    fn take(&mut self, chunk: &[u8], sink: &mut Sink<'_>) -> Result<(), PluginError> {
        if self.pending.is_empty() {
            let used = self.decode(chunk, sink)?;
            self.pending.extend_from_slice(&chunk[used..]);
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(chunk);
        let used = self.decode(&pending, sink)?;
        pending.drain(..used);
        self.pending = pending;
        Ok(())
    }

    /// Decodes the whole rows at the beginning; how many bytes they have.
    fn decode(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<usize, PluginError> {
        let mut used = 0;
        if !self.begun {
            let mut head = Bytes(bytes);
            let Some(signature) = head.take(SIGNATURE.len()) else { return Ok(0) };
            if signature != SIGNATURE {
                return Err(not_understood());
            }
            let (Some(_flags), Some(extension)) = (head.i32(), head.i32()) else { return Ok(0) };
            if head.take(usize::try_from(extension).map_err(|_| not_understood())?).is_none() {
                return Ok(0);
            }
            (self.begun, used) = (true, bytes.len() - head.0.len());
        }
        while let Some(row) = self.whole_row(&bytes[used..])? {
            if row == 2 {
                self.ended = true;
                return Ok(used + row);
            }
            if let Some(batch) = self.row(&bytes[used..used + row])? {
                sink(batch)?;
            }
            used += row;
        }
        Ok(used)
    }

    /// The bytes of the row at the beginning, if all of it is there; two for the mark of the end. A row that is
    /// too large is refused before it has come.
    fn whole_row(&self, bytes: &[u8]) -> Result<Option<usize>, PluginError> {
        let mut rest = Bytes(bytes);
        let mut row_bytes = 0;
        let Some(cells) = rest.i16() else { return Ok(None) };
        for at in 0..usize::try_from(cells).unwrap_or(0) {
            let Some(length) = rest.i32() else { return Ok(None) };
            if length < -1 {
                return Err(not_understood());
            }
            let length = usize::try_from(length).unwrap_or(0);
            row_bytes += length;
            if row_bytes > ROW_BYTES_MAX {
                return Err(self.rows.name(at).map_or_else(not_understood, too_large));
            }
            if rest.take(length).is_none() {
                return Ok(None);
            }
        }
        Ok(Some(bytes.len() - rest.0.len()))
    }

    fn row(&mut self, bytes: &[u8]) -> Result<Option<RecordBatch>, PluginError> {
        let mut bytes = Bytes(bytes);
        let cells = bytes.i16().ok_or_else(not_understood)?;
        if usize::try_from(cells) != Ok(self.rows.cells.len()) {
            return Err(not_understood());
        }
        let mut text_bytes = 0;
        for at in 0..self.rows.cells.len() {
            let length = bytes.i32().ok_or_else(not_understood)?;
            let cells = &mut self.rows.cells[at];
            let Ok(length) = usize::try_from(length) else {
                cells.null();
                continue;
            };
            let value = bytes.take(length).ok_or_else(not_understood)?;
            if matches!(cells, Cells::Text(_)) {
                text_bytes += length;
            }
            if !add(cells, value).ok_or_else(not_understood)? {
                self.rows.is_unfit(at);
            }
        }
        Ok(self.rows.end_row(text_bytes))
    }

    fn end(mut self, sink: &mut Sink<'_>) -> Result<(), PluginError> {
        note_unfit(&self.rows);
        if let Some(batch) = self.rows.finish() {
            sink(batch)?;
        }
        if self.ended { Ok(()) } else { Err(PluginError::new(ErrorClass::Unavailable, "the server broke off")) }
    }
}

/// Adds a value; whether it is one of the column's type. None where the bytes are not of the type.
fn add(cells: &mut Cells, value: &[u8]) -> Option<bool> {
    match cells {
        Cells::Text(cells) => cells.append_value(std::str::from_utf8(value).ok()?),
        Cells::Boolean(cells) => cells.append_value(*value.first()? != 0),
        Cells::Integer(cells) => cells.append_value(match value.len() {
            2 => i64::from(i16::from_be_bytes(value.try_into().ok()?)),
            4 => i64::from(i32::from_be_bytes(value.try_into().ok()?)),
            _ => i64::from_be_bytes(value.try_into().ok()?),
        }),
        Cells::Float(cells) => cells.append_value(match value.len() {
            4 => f64::from(f32::from_be_bytes(value.try_into().ok()?)),
            _ => f64::from_be_bytes(value.try_into().ok()?),
        }),
        Cells::Decimal(cells) => {
            let number = numeric(value)?;
            cells.append_option(number);
            return Some(number.is_some());
        }
        Cells::Moment(cells) => {
            let at = i64::from_be_bytes(value.try_into().ok()?);
            // Infinity, both ways.
            let at = at.checked_add(EPOCH_US).filter(|_| at != i64::MAX && at != i64::MIN);
            cells.append_option(at);
            return Some(at.is_some());
        }
        Cells::Day(cells) => {
            let day = i32::from_be_bytes(value.try_into().ok()?);
            let day = day.checked_add(EPOCH_DAYS).filter(|_| day != i32::MAX && day != i32::MIN);
            cells.append_option(day);
            return Some(day.is_some());
        }
        // PostgreSQL has none.
        Cells::Unsigned(_) => return None,
    }
    Some(true)
}

/// A `numeric` in units of the last digit that we keep: groups of four digits, the first of them worth
/// 10000 to the power of its weight. The inner none is a number that we have no room for, or none at all.
fn numeric(value: &[u8]) -> Option<Option<i128>> {
    let mut bytes = Bytes(value);
    let (groups, weight, sign, _scale) = (bytes.i16()?, bytes.i16()?, bytes.i16()? as u16, bytes.i16()?);
    if sign & 0xc000 == 0xc000 {
        return Some(None);
    }
    let mut total: Option<i128> = Some(0);
    for group in 0..groups {
        let digits = i128::from(bytes.i16()?);
        // The power of ten that the group's last digit is worth, in our units.
        let power = (i32::from(weight) - i32::from(group)) * 4 + i32::from(DECIMAL_PLACES);
        let part = if power >= 0 {
            10_i128.checked_pow(power.unsigned_abs()).and_then(|unit| digits.checked_mul(unit))
        } else {
            // Beyond what is kept; the group that is only partly so decides how it is rounded.
            let unit = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power > -4);
            Some(unit.map_or(0, |unit| (digits + unit / 2) / unit))
        };
        total = total.zip(part).and_then(|(total, part)| total.checked_add(part));
    }
    let total = total.filter(|total| *total < 10_i128.pow(38));
    Some(total.map(|total| if sign == 0x4000 { -total } else { total }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_exact() {
        let value = |weight: i16, sign: u16, groups: &[i16]| {
            let mut bytes = Vec::new();
            for part in [groups.len() as i16, weight, sign as i16, 0].iter().chain(groups) {
                bytes.extend_from_slice(&part.to_be_bytes());
            }
            numeric(&bytes)
        };
        assert_eq!(value(0, 0, &[12, 3400]), Some(Some(123_400_000_000)), "12.34");
        assert_eq!(value(1, 0x4000, &[1, 2]), Some(Some(-100_020_000_000_000)), "-10002");
        assert_eq!(value(0, 0, &[]), Some(Some(0)));
        assert_eq!(value(0, 0xc000, &[]), Some(None), "not a number");
        assert_eq!(value(-3, 0, &[50]), Some(Some(1)), "0.000000000050 is half a unit");
        assert_eq!(value(-3, 0, &[49]), Some(Some(0)));
        assert_eq!(value(-2, 0, &[0, 150]), Some(Some(2)), "1.5 units");
        assert_eq!(value(-4, 0, &[5000]), Some(Some(0)), "far below a unit");
        assert_eq!(value(9, 0, &[1]), Some(None), "too large");
        assert_eq!(numeric(&[0, 1]), None);
    }

    #[test]
    fn a_copy_may_be_cut_anywhere() {
        let mut copy = SIGNATURE.to_vec();
        copy.extend_from_slice(&[0; 8]);
        for (number, text) in [(7_i32, Some("张三")), (-1, None)] {
            copy.extend_from_slice(&2_i16.to_be_bytes());
            copy.extend_from_slice(&4_i32.to_be_bytes());
            copy.extend_from_slice(&number.to_be_bytes());
            copy.extend_from_slice(&text.map_or(-1, |text: &str| text.len() as i32).to_be_bytes());
            copy.extend_from_slice(text.unwrap_or_default().as_bytes());
        }
        copy.extend_from_slice(&(-1_i16).to_be_bytes());
        let columns = [("a", Kind::Integer), ("b", Kind::Text)].map(|(name, kind)| Column { name: name.into(), kind, as_text: false });
        let run = |chunks: Vec<&[u8]>| {
            let (mut decoder, mut batches) = (Decoder::new(&columns), Vec::new());
            let mut sink = |batch| {
                batches.push(batch);
                Ok(())
            };
            for chunk in chunks {
                decoder.take(chunk, &mut sink)?;
            }
            decoder.end(&mut sink)?;
            Ok::<_, PluginError>(batches)
        };
        let whole = run(vec![&copy]).expect("a copy");
        assert_eq!((whole.len(), whole[0].num_rows()), (1, 2));
        for size in 1..copy.len() {
            assert_eq!(run(copy.chunks(size).collect()).expect("a copy"), whole, "{size}");
        }
        let broken = run(vec![&copy[..copy.len() - 2]]).expect_err("no end");
        assert_eq!(broken.class, ErrorClass::Unavailable);
        assert_eq!(run(vec![b"PGCOPY\n\xff\r\n\x01 and more bytes"]).expect_err("no copy").class, ErrorClass::InvalidData);
    }
}
