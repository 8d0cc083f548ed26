//! The members with the figures of their orders, in SQL that all the databases understand.
//!
//! An order is what its rows come to. The rows of a return belong to the order that they give back, if they name
//! it, and take their amount off. What comes to nothing, or less, is no order.

use crate::columns::{Column, Kind};
use crate::config::{Dialect, Orders};
use crate::query::{bare, literals, quoted};
use crate::value::Value;

/// The columns that are added to those of the members, but for the category.
const NAMES: [&str; 6] = ["first_order_at", "last_order_at", "last_order_amount", "order_count", "total_spent", "max_order_amount"];
/// The column that is added where orders have a category.
const FAVOURITE: &str = "favourite_category";

/// The figures of orders, as SQL.
#[derive(Debug)]
pub struct Figures {
    dialect: Dialect,
    orders: Orders,
    /// Columns of `orders` as terms in which no text is empty.
    order_id: String,
    returns: Option<String>,
    category: Option<String>,
}

impl Figures {
    /// Of orders with these columns, all of which are there.
    pub fn new(dialect: Dialect, orders: &Orders, columns: &[Column]) -> Self {
        let term = |name: &String| {
            let column = columns.iter().find(|column| column.name == *name);
            let term = format!("s.{}", quoted(dialect, name));
            match column.map(|column| column.kind) {
                Some(Kind::Text) if dialect == Dialect::Postgres => format!("nullif(trim({term}::text), '')"),
                Some(Kind::Text) => format!("nullif(trim({term}), '')"),
                _ => term,
            }
        };
        Self {
            dialect,
            order_id: term(&orders.order_id),
            returns: orders.returns.as_ref().map(term),
            category: orders.category.as_ref().map(term),
            orders: orders.clone(),
        }
    }

    /// The columns that are added to those of the members.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().chain(self.category.as_ref().map(|_| FAVOURITE))
    }

    /// `query` with the figures of its members, computed from the orders of these ids or of all.
    pub fn joined(&self, query: &str, id: &str, ids: Option<&[Value]>) -> String {
        let figures = self.names().map(|name| match name {
            "order_count" | "total_spent" => format!("coalesce(o.{name}, 0) as {name}"),
            name => format!("o.{name}"),
        });
        let (figures, id) = (figures.collect::<Vec<_>>().join(", "), quoted(self.dialect, id));
        let totals = self.totals(ids);
        format!("select m.*, {figures} from (\n{query}\n) as m left join (\n{totals}\n) as o on o.member_id = m.{id}")
    }

    /// One row for each member with orders.
    fn totals(&self, ids: Option<&[Value]>) -> String {
        let name = |name: &str| format!("s.{}", quoted(self.dialect, name));
        let (member, at) = (name(&self.orders.member), name(&self.orders.at));
        let amount = format!("cast({} as decimal(38, 10))", name(&self.orders.amount));
        let (order, amount, is_return) = match &self.returns {
            None => (self.order_id.clone(), amount, "0".to_owned()),
            Some(returns) => (
                format!("coalesce({returns}, {})", self.order_id),
                format!("case when {returns} is null then {amount} else -abs({amount}) end"),
                format!("case when {returns} is null then 0 else 1 end"),
            ),
        };
        let category = self.category.as_ref().map_or_else(String::new, |category| format!(", {category} as category"));
        let wanted = ids.map_or_else(String::new, |ids| format!(" and {member} in ({})", literals(self.dialect, ids)));
        let query = bare(&self.orders.query);
        let (favourite, join) = if self.category.is_some() { (FAVOURITES, JOIN_FAVOURITE) } else { ("", "") };
        let favourite_column = if self.category.is_some() { ", f.category as favourite_category" } else { "" };
        format!(
            "with reunion_line as (
  select {member} as member_id, {order} as order_key, {at} as placed_at, {amount} as amount, {is_return} as is_return{category}
  from (\n{query}\n) as s
  where {member} is not null{wanted}
), reunion_order as (
  select member_id, order_key, min(case when is_return = 0 and amount >= 0 then placed_at end) as placed_at,
    round(sum(amount), 2) as amount
  from reunion_line where order_key is not null group by member_id, order_key having min(is_return) = 0
), reunion_total as (
  select member_id, min(case when amount > 0 then placed_at end) as first_order_at,
    max(case when amount > 0 then placed_at end) as last_order_at, count(case when amount > 0 then 1 end) as order_count,
    round(sum(amount), 2) as total_spent, max(case when amount > 0 then amount end) as max_order_amount
  from reunion_order group by member_id
), reunion_last as (
  select member_id, amount, row_number() over (partition by member_id order by placed_at desc, order_key desc) as place
  from reunion_order where amount > 0 and placed_at is not null
){favourite}
select t.*, l.amount as last_order_amount{favourite_column}
from reunion_total as t left join reunion_last as l on l.member_id = t.member_id and l.place = 1{join}"
        )
    }
}

/// The categories of orders that count, by what was paid for them.
const FAVOURITES: &str = ", reunion_category as (
  select i.member_id, i.category, round(sum(i.amount), 2) as amount
  from reunion_line as i join reunion_order as p on p.member_id = i.member_id and p.order_key = i.order_key
  where p.amount > 0 and i.category is not null group by i.member_id, i.category
), reunion_favourite as (
  select member_id, category, row_number() over (partition by member_id order by amount desc, category) as place
  from reunion_category where amount > 0
)";
const JOIN_FAVOURITE: &str = "\n  left join reunion_favourite as f on f.member_id = t.member_id and f.place = 1";
