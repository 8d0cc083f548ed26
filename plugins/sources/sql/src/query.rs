//! The statements that a pull runs: the operator's query, put into one that orders its rows and begins where
//! the pull stands.

use crate::columns::Column;
use crate::config::{CURSOR, Dialect};
use crate::value::Value;

/// Which rows of the operator's query, in which order.
#[derive(Debug, Clone, PartialEq)]
pub enum Part<'a> {
    /// All, as they come.
    All,
    /// All, by id; from this id on.
    ById {
        /// The column.
        id: &'a str,
        /// Where the pull stands.
        from: Option<&'a Value>,
    },
    /// Those with one of these ids, as they come.
    OfIds {
        /// The column.
        id: &'a str,
        /// The ids.
        ids: &'a [Value],
    },
    /// Those with a cursor, by cursor and id; from this place on.
    WithCursor {
        /// The column of the cursor.
        cursor: &'a str,
        /// The column of the id.
        id: &'a str,
        /// Where the pull stands.
        from: Option<(&'a Value, &'a Value)>,
    },
    /// Those without a cursor, by id; from this id on.
    WithoutCursor {
        /// The column of the cursor.
        cursor: &'a str,
        /// The column of the id.
        id: &'a str,
        /// Where the pull stands.
        from: Option<&'a Value>,
    },
}

impl Part<'_> {
    /// Whether it begins behind rows that another statement gave.
    pub fn goes_on(&self) -> bool {
        match self {
            Self::All | Self::OfIds { .. } => false,
            Self::ById { from, .. } | Self::WithoutCursor { from, .. } => from.is_some(),
            Self::WithCursor { from, .. } => from.is_some(),
        }
    }
}

/// A query as it can stand within another one.
pub fn bare(query: &str) -> &str {
    query.trim().trim_end_matches(';').trim_end()
}

/// The operator's query with this in the place of `$cursor`.
pub fn with_cursor(query: &str, literal: &str) -> String {
    let mut text = String::with_capacity(query.len() + literal.len());
    let mut rest = bare(query);
    while let Some(at) = rest.find(CURSOR) {
        let (before, after) = (&rest[..at], &rest[at + CURSOR.len()..]);
        text.push_str(before);
        // `$cursor_id` would be another name.
        let is_name = after.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        text.push_str(if is_name { CURSOR } else { literal });
        rest = after;
    }
    text.push_str(rest);
    text
}

/// A name as the database takes it whatever it holds.
pub fn quoted(dialect: Dialect, name: &str) -> String {
    match dialect {
        Dialect::Mysql => format!("`{}`", name.replace('`', "``")),
        Dialect::Postgres | Dialect::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// What gives this part of the rows of `query`, in these columns.
pub fn select(dialect: Dialect, query: &str, columns: &[Column], part: &Part<'_>) -> String {
    let name = |name: &str| format!("q.{}", quoted(dialect, name));
    let list = columns.iter().map(|column| match column.as_text {
        true => format!("{}::text", name(&column.name)),
        false => name(&column.name),
    });
    let list = list.collect::<Vec<_>>().join(", ");
    let literal = |value: &Value| value.literal(dialect);
    let (condition, order) = match part {
        Part::All => (None, None),
        Part::OfIds { id, ids } => (Some(format!("{} in ({})", name(id), literals(dialect, ids))), None),
        Part::ById { id, from } => (from.map(|from| format!("{} >= {}", name(id), literal(from))), Some(name(id))),
        Part::WithCursor { cursor, id, from } => {
            let (cursor, id) = (name(cursor), name(id));
            let condition = match from {
                None => format!("{cursor} is not null"),
                // The row itself once more, and with it others of its id; those that were handed on are left out.
                Some((at, from)) => format!("({cursor}, {id}) >= ({}, {})", literal(at), literal(from)),
            };
            (Some(condition), Some(format!("{cursor}, {id}")))
        }
        Part::WithoutCursor { cursor, id, from } => {
            let (cursor, id) = (name(cursor), name(id));
            let from = from.map_or_else(String::new, |from| format!(" and {id} >= {}", literal(from)));
            (Some(format!("{cursor} is null{from}")), Some(id))
        }
    };
    // On a line of its own, since the query may end with a comment.
    let condition = condition.map_or_else(String::new, |condition| format!(" where {condition}"));
    let order = order.map_or_else(String::new, |order| format!(" order by {order}"));
    format!("select {list} from (\n{query}\n) as q{condition}{order}")
}

/// The values, as a list in SQL.
pub fn literals(dialect: Dialect, values: &[Value]) -> String {
    values.iter().map(|value| value.literal(dialect)).collect::<Vec<_>>().join(", ")
}

/// How many rows of `query` have no cursor.
pub fn count_nulls(dialect: Dialect, query: &str, cursor: &str) -> String {
    format!("select count(*) from (\n{query}\n) as q where q.{} is null", quoted(dialect, cursor))
}

/// One where `query` has a row with an id in this column, or none.
pub fn count_ids(dialect: Dialect, query: &str, id: &str) -> String {
    format!(
        "select count(*) from (select 1 as one from (\n{}\n) as q where q.{} is not null limit 1) as ids",
        bare(query),
        quoted(dialect, id)
    )
}

/// How many rows of `query` have a cursor beyond this value.
pub fn count_after(dialect: Dialect, query: &str, cursor: &str, value: &Value) -> String {
    format!("select count(*) from (\n{query}\n) as q where q.{} > {}", quoted(dialect, cursor), value.literal(dialect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{Column, Kind};

    #[test]
    fn the_cursor_is_put_in_wherever_it_stands() {
        assert_eq!(with_cursor(" select $cursor, '$cursors' where a > $cursor ;\n", "'x'"), "select 'x', '$cursors' where a > 'x'");
        assert_eq!(with_cursor("select 1 -- 会员", "'x'"), "select 1 -- 会员");
    }

    #[test]
    fn statements_say_where_they_begin() {
        let columns = [
            Column { name: "卡\"号".into(), kind: Kind::Text, as_text: false },
            Column { name: "at".into(), kind: Kind::Moment, as_text: false },
            Column { name: "raw".into(), kind: Kind::Text, as_text: true },
        ];
        let (cursor, id) = ("at", "卡\"号");
        let (at, card) = (Value::Moment(0), Value::Text("A'1".into()));
        let postgres = |part| select(Dialect::Postgres, "select 1 -- x", &columns, &part);
        let list = "select q.\"卡\"\"号\", q.\"at\", q.\"raw\"::text from (\nselect 1 -- x\n) as q";
        assert_eq!(postgres(Part::All), list);
        let ids = [card.clone(), Value::Text("B".into())];
        assert_eq!(postgres(Part::OfIds { id, ids: &ids }), format!("{list} where q.\"卡\"\"号\" in ('A''1', 'B')"));
        assert_eq!(postgres(Part::ById { id, from: None }), format!("{list} order by q.\"卡\"\"号\""));
        assert_eq!(
            postgres(Part::WithCursor { cursor, id, from: Some((&at, &card)) }),
            format!(
                "{list} where (q.\"at\", q.\"卡\"\"号\") >= ('1970-01-01 00:00:00.000000'::timestamp, 'A''1') order by q.\"at\", q.\"卡\"\"号\""
            )
        );
        let mysql = select(Dialect::Mysql, "select 1", &columns[..2], &Part::WithoutCursor { cursor, id, from: Some(&card) });
        let expected = "select q.`卡\"号`, q.`at` from (\nselect 1\n) as q where q.`at` is null and q.`卡\"号` >= _utf8mb4 x'412731' order by q.`卡\"号`";
        assert_eq!(mysql, expected);
        assert_eq!(count_nulls(Dialect::Sqlite, "select 1", "at"), "select count(*) from (\nselect 1\n) as q where q.\"at\" is null");
    }
}
