//! What the queries of a source give: the columns of its members, and those that say where a pull stands.

use reunion_sdk::{ErrorClass, PluginError};

use crate::columns::{Column, Kind};
use crate::config::{Config, Dialect, Orders, changed_key};
use crate::database::{Clock, Session};
use crate::orders::Figures;
use crate::query::{bare, count_ids, with_cursor};
use crate::value::{CursorKind, is_id};
use crate::wait::Wait;

/// The columns of a source's queries.
pub struct Shape {
    /// Of the members.
    pub columns: Vec<Column>,
    /// Which of them is the id.
    pub id: Option<usize>,
    /// Which of them is the cursor.
    pub cursor: Option<usize>,
    /// Of each query of `changed`: an id and a cursor.
    pub changed: Vec<Vec<Column>>,
    /// What can be said of each cursor: the one of the members, or one for each query of `changed`.
    pub cursors: Vec<CursorKind>,
    /// What is computed from orders.
    pub figures: Option<Figures>,
}

/// Asks the database for the columns of queries.
struct Asking<'a> {
    session: &'a mut Session,
    config: &'a Config,
    dialect: Dialect,
    wait: Wait<'a>,
}

impl Shape {
    /// Asks the database for the columns.
    ///
    /// # Errors
    /// Where a query is none, or lacks a column that the config names.
    pub async fn of(session: &mut Session, config: &Config, dialect: Dialect, wait: Wait<'_>) -> Result<Self, PluginError> {
        let mut asking = Asking { session, config, dialect, wait };
        let (id, cursor) = (config.id_column.as_deref(), config.cursor_column.as_deref());
        let mut columns = asking.columns("query", &config.query, &[id, cursor].into_iter().flatten().collect::<Vec<_>>()).await?;
        let id = id.map(|name| place("id_column", &columns, name)).transpose()?;
        if let Some(id) = id {
            check_id("id_column", &columns[id])?;
        }
        let cursor = cursor.map(|name| place("cursor_column", &columns, name)).transpose()?;
        let mut cursors = cursor.map(|at| cursor_kind("cursor_column", &columns[at])).transpose()?.into_iter().collect::<Vec<_>>();
        let mut changed = Vec::new();
        let mut figures = None;
        if let Some(id) = id {
            for at in 0..config.changed.len() {
                let mark = asking.changed(at, &columns[id]).await?;
                cursors.push(cursor_kind(&changed_key(at), &mark[1])?);
                changed.push(mark);
            }
            if let Some(orders) = &config.orders {
                let (found, added) = asking.orders(orders, &columns, id).await?;
                figures = Some(found);
                columns.extend(added);
            }
        }
        Ok(Self { columns, id, cursor, changed, cursors, figures })
    }

    /// The name of a column.
    pub fn name(&self, at: usize) -> &str {
        &self.columns[at].name
    }

    /// The source's clock, as each cursor shows it.
    ///
    /// # Errors
    /// Where the database refuses, or the timezone is none.
    pub async fn clocks(&self, session: &mut Session, config: &Config, wait: Wait<'_>) -> Result<Vec<Clock>, PluginError> {
        let mut clocks = Vec::new();
        for cursor in &self.cursors {
            clocks.push(session.clock(*cursor, config, wait).await?);
        }
        Ok(clocks)
    }
}

impl Asking<'_> {
    /// The columns of a query, all of which have names of their own.
    async fn columns(&mut self, key: &str, query: &str, marks: &[&str]) -> Result<Vec<Column>, PluginError> {
        let literal = match self.dialect {
            Dialect::Postgres | Dialect::Mysql => "null".to_owned(),
            // Whose columns are known by their values: below every number, and so below every text.
            Dialect::Sqlite => CursorKind::Integer.minimum(self.dialect),
        };
        let columns = self.session.columns(&with_cursor(query, &literal), marks, self.wait).await.map_err(|error| about(key, error))?;
        if columns.is_empty() {
            return Err(PluginError::new(ErrorClass::InvalidConfig, "the query gives no columns").key(key).hint("write a select"));
        }
        if let Some(twice) = columns.iter().enumerate().find(|(at, column)| columns[..*at].iter().any(|other| other.name == column.name)) {
            let message = format!("the query gives two columns of the name {:?}", twice.1.name);
            return Err(PluginError::new(ErrorClass::InvalidConfig, message).key(key).hint("give one of them another name: … as …"));
        }
        Ok(columns)
    }

    /// The two columns of a query of `changed`, whose ids are those of the members.
    async fn changed(&mut self, at: usize, member: &Column) -> Result<Vec<Column>, PluginError> {
        let (key, query) = (changed_key(at), &self.config.changed[at]);
        let mut columns = self.columns(&key, query, &[]).await?;
        if columns.len() != 2 {
            let message = format!("the query gives {} columns, and two are needed: an id and a cursor", columns.len());
            return Err(PluginError::new(ErrorClass::InvalidConfig, message).key(key));
        }
        if self.dialect == Dialect::Sqlite {
            let names = columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
            columns = self.columns(&key, query, &names.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            // Each value has a type of its own there, and is written as those of the members are.
            columns[0].kind = member.kind;
        }
        same_kind(&key, &columns[0], member)?;
        Ok(columns)
    }

    /// What is computed from orders, and the columns that are added to those of the members.
    async fn orders(&mut self, orders: &Orders, members: &[Column], id: usize) -> Result<(Figures, Vec<Column>), PluginError> {
        let columns = self.columns("orders.query", &orders.query, &[&orders.member]).await?;
        let Orders { member, order_id, at, amount, category, returns, .. } = orders;
        let named = [("member", Some(member)), ("order_id", Some(order_id)), ("at", Some(at)), ("amount", Some(amount))];
        let named = named.into_iter().chain([("category", category.as_ref()), ("returns", returns.as_ref())]);
        let mut found = Vec::new();
        for (key, name) in named.filter_map(|(key, name)| Some((format!("orders.{key}"), name?))) {
            found.push((place(&key, &columns, name)?, key));
        }
        let of = |at: usize| &columns[found[at].0];
        if !matches!(of(3).kind, Kind::Integer | Kind::Unsigned | Kind::Float | Kind::Decimal | Kind::Text) {
            return Err(of_no_use("orders.amount", of(3), "an amount is a number"));
        }
        if let Some(at) = found.iter().position(|(_, key)| key == "orders.returns") {
            same_kind("orders.returns", of(at), of(1))?;
        }
        let same = same_kind("orders.member", of(0), &members[id]);
        // What nothing is known of in SQLite counts as text.
        if self.dialect != Dialect::Sqlite || self.session.number(&count_ids(self.dialect, &orders.query, member), self.wait).await? > 0 {
            same?;
        }
        let figures = Figures::new(self.dialect, orders, &columns);
        if let Some(name) = figures.names().find(|name| members.iter().any(|column| column.name == *name)) {
            let message = format!("`query` gives a column {name:?}, and so does `orders`");
            let hint = "leave it out of `query`, or call it something else there";
            return Err(PluginError::new(ErrorClass::InvalidConfig, message).key("query").hint(hint));
        }
        let joined = figures.joined(bare(&self.config.query), &members[id].name, None);
        let mut added = self.columns("orders.query", &joined, &[]).await?;
        Ok((figures, added.split_off(members.len())))
    }
}

/// An error of the database about the query of this key.
pub fn about(key: &str, mut error: PluginError) -> PluginError {
    if error.key.as_deref() == Some("query") {
        error.key = Some(key.to_owned());
    }
    error
}

fn place(key: &str, columns: &[Column], name: &str) -> Result<usize, PluginError> {
    columns.iter().position(|column| column.name == name).ok_or_else(|| {
        let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        PluginError::new(ErrorClass::InvalidConfig, format!("the query has no column {name:?}; it has {names}")).key(key)
    })
}

fn of_no_use(key: &str, column: &Column, what: &str) -> PluginError {
    let Column { name, kind, .. } = column;
    PluginError::new(ErrorClass::InvalidConfig, format!("the column {name:?} is of the type {}, and {what}", kind.arrow())).key(key)
}

fn check_id(key: &str, column: &Column) -> Result<(), PluginError> {
    if is_id(&column.kind.arrow()) { Ok(()) } else { Err(of_no_use(key, column, "an id is a text, a number or a time")) }
}

fn cursor_kind(key: &str, column: &Column) -> Result<CursorKind, PluginError> {
    let kind = CursorKind::of(&column.kind.arrow());
    kind.ok_or_else(|| of_no_use(key, column, "a cursor is a time, a day, a whole number or a text"))
}

/// That values of two columns can be compared.
fn same_kind(key: &str, column: &Column, other: &Column) -> Result<(), PluginError> {
    let whole = |kind| matches!(kind, Kind::Integer | Kind::Unsigned);
    if column.kind == other.kind || whole(column.kind) && whole(other.kind) {
        return Ok(());
    }
    let what = format!("{:?}, which it is compared with, is {}", other.name, other.kind.arrow());
    Err(of_no_use(key, column, &what).hint("make both of one type in the queries: cast(… as …)"))
}
