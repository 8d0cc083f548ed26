//! What a rule may be: one condition over one member, with types that fit.
//!
//! Types are checked before DataFusion would coerce them: it takes `store = 12` for a comparison of numbers
//! and fails on the first store that is none. What is left for DataFusion to find is translated.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{DFSchema, Result as FusionResult};
use datafusion::logical_expr::expr::{Between, InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility};

use crate::scan::{Complaint, Scan};
use crate::translate::translate;

/// What a value is, in the operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Text,
    Number,
    Boolean,
    Time,
    Day,
    Interval,
    Other,
}

impl Kind {
    fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Null => Self::Null,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Boolean => Self::Boolean,
            DataType::Timestamp(..) => Self::Time,
            DataType::Date32 | DataType::Date64 => Self::Day,
            DataType::Interval(_) | DataType::Duration(_) => Self::Interval,
            number if number.is_numeric() => Self::Number,
            _ => Self::Other,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text => "text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Time => "a time",
            Self::Day => "a day",
            Self::Interval => "a length of time",
            Self::Other => "a value of another kind",
        }
    }

    const fn compares_with(self, other: Self) -> bool {
        use Kind::{Day, Null, Other, Time};
        matches!((self, other), (Null | Other, _) | (_, Null | Other) | (Time, Day) | (Day, Time)) || self as u8 == other as u8
    }
}

/// Whether a rule may be this expression: one boolean over one row, with types that fit.
///
/// # Errors
/// With the first thing that is wrong.
pub(crate) fn check_rule(expr: &Expr, schema: &DFSchema, scan: &Scan) -> Result<(), Complaint> {
    let mut checker = Checker { schema, scan, found: None };
    expr.visit(&mut checker).map_err(|error| translate(&error, "", scan, &[]))?;
    if let Some(complaint) = checker.found {
        return Err(complaint);
    }
    let kind = expr.get_type(schema).map_err(|error| translate(&error, "", scan, &[]))?;
    match Kind::of(&kind) {
        Kind::Boolean => Ok(()),
        Kind::Null => Err(Complaint::new("the rule is always null").suggest("write a condition, such as order_count > 0")),
        kind => Err(Complaint::new(format!("the rule gives {}, and must say true or false", kind.words()))
            .suggest(comparison_for(&shown(expr), kind))),
    }
}

fn comparison_for(expr: &str, kind: Kind) -> String {
    let right = match kind {
        Kind::Number => "> 0",
        Kind::Text => "= '…'",
        Kind::Time => "< now() - interval '180 days'",
        Kind::Day => "< current_date",
        _ => "is not null",
    };
    format!("compare it, as in {expr} {right}")
}

struct Checker<'a> {
    schema: &'a DFSchema,
    scan: &'a Scan,
    found: Option<Complaint>,
}

impl<'n> TreeNodeVisitor<'n> for Checker<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: &'n Expr) -> FusionResult<TreeNodeRecursion> {
        Ok(self.keep(self.forbidden(expr)))
    }

    fn f_up(&mut self, expr: &'n Expr) -> FusionResult<TreeNodeRecursion> {
        Ok(self.keep(self.types(expr)))
    }
}

impl Checker<'_> {
    fn keep(&mut self, result: Result<(), Complaint>) -> TreeNodeRecursion {
        match result {
            Ok(()) => TreeNodeRecursion::Continue,
            Err(complaint) => {
                self.found = Some(complaint);
                TreeNodeRecursion::Stop
            }
        }
    }

    fn kind(&self, expr: &Expr) -> Kind {
        // What has no type was complained of before, children first.
        expr.get_type(self.schema).map_or(Kind::Other, |kind| Kind::of(&kind))
    }

    /// Where the expression stands, as well as it can be told: the first name or value in it.
    fn span(&self, expr: &Expr) -> Option<(usize, usize)> {
        let mut span = None;
        let _ = expr.apply(|node| {
            span = match node {
                Expr::Column(column) => self.scan.find(&column.name),
                Expr::Literal(value, _) => self.scan.find(&value.to_string()),
                Expr::ScalarFunction(function) => self.scan.find(function.name()),
                _ => None,
            };
            Ok(if span.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        span
    }

    fn forbidden(&self, expr: &Expr) -> Result<(), Complaint> {
        let complaint = match expr {
            Expr::AggregateFunction(function) => {
                Complaint::new(format!("{} looks at many members, and a rule looks at one", function.func.name()))
                    .suggest("use a derived column, such as store_rank_by_spent")
                    .at(self.scan.find(function.func.name()))
            }
            Expr::WindowFunction(function) => {
                Complaint::new(format!("{} over (…) looks at many members, and a rule looks at one", function.fun.name()))
                    .suggest("use a derived column, such as store_rank_by_spent")
                    .at(self.scan.find(function.fun.name()))
            }
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) | Expr::OuterReferenceColumn(..) => {
                subquery()
            }
            Expr::Placeholder(placeholder) => {
                Complaint::new(format!("`{}` stands for a value, and a rule has no values to give", placeholder.id))
                    .at(self.scan.find(&placeholder.id))
            }
            Expr::ScalarFunction(function) if function.func.signature().volatility == Volatility::Volatile => {
                Complaint::new(format!("{}() gives another value each time, and a rule must give the same answer again", function.name()))
                    .at(self.scan.find(function.name()))
            }
            #[expect(deprecated)]
            Expr::Wildcard { .. } => Complaint::new("`*` is no condition"),
            Expr::GroupingSet(_)
            | Expr::Unnest(_)
            | Expr::Lambda(_)
            | Expr::LambdaVariable(_)
            | Expr::HigherOrderFunction(_)
            | Expr::ScalarVariable(..) => Complaint::new(format!("`{}` cannot stand in a rule", shown(expr))),
            _ => return Ok(()),
        };
        Err(complaint)
    }

    fn types(&self, expr: &Expr) -> Result<(), Complaint> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.operator(left, *op, right),
            Expr::Not(inner) => self.condition("not", inner),
            Expr::IsTrue(inner) | Expr::IsFalse(inner) | Expr::IsUnknown(inner) => self.condition("is", inner),
            Expr::Between(Between { expr, low, high, .. }) => self.comparison(expr, low).and_then(|()| self.comparison(expr, high)),
            Expr::InList(InList { expr, list, .. }) => list.iter().try_for_each(|item| self.comparison(expr, item)),
            Expr::Like(Like { expr, pattern, .. }) | Expr::SimilarTo(Like { expr, pattern, .. }) => {
                self.text("like", expr).and_then(|()| self.text("like", pattern))
            }
            Expr::ScalarFunction(function) => self.function(function, expr),
            _ => expr.get_type(self.schema).map(|_| ()).map_err(|error| translate(&error, "", self.scan, &[])),
        }
    }

    fn operator(&self, left: &Expr, op: Operator, right: &Expr) -> Result<(), Complaint> {
        match op {
            Operator::And | Operator::Or => {
                let word = if op == Operator::And { "and" } else { "or" };
                self.condition(word, left).and_then(|()| self.condition(word, right))
            }
            Operator::RegexMatch
            | Operator::RegexIMatch
            | Operator::RegexNotMatch
            | Operator::RegexNotIMatch
            | Operator::LikeMatch
            | Operator::ILikeMatch
            | Operator::NotLikeMatch
            | Operator::NotILikeMatch => self.text(&op.to_string(), left).and_then(|()| self.text(&op.to_string(), right)),
            Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => self.comparison(left, right),
            Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo => self.arithmetic(left, op, right),
            _ => Ok(()),
        }
    }

    fn condition(&self, word: &str, expr: &Expr) -> Result<(), Complaint> {
        match self.kind(expr) {
            Kind::Boolean | Kind::Null => Ok(()),
            kind => Err(Complaint::new(format!("`{word}` works on conditions, and {} is {}", shown(expr), kind.words()))
                .suggest(comparison_for(&shown(expr), kind))
                .at(self.span(expr))),
        }
    }

    fn text(&self, word: &str, expr: &Expr) -> Result<(), Complaint> {
        match self.kind(expr) {
            Kind::Text | Kind::Null => Ok(()),
            kind => {
                let suggestion = format!("write cast({} as text)", shown(expr));
                Err(Complaint::new(format!("`{word}` works on text, and {} is {}", shown(expr), kind.words()))
                    .suggest(suggestion)
                    .at(self.span(expr)))
            }
        }
    }

    fn comparison(&self, left: &Expr, right: &Expr) -> Result<(), Complaint> {
        let (left_kind, right_kind) = (self.kind(left), self.kind(right));
        if let (Kind::Interval, Kind::Interval) = (left_kind, right_kind) {
            // A month has no fixed length, so the engine compares months, days and seconds one by one.
            return Err(Complaint::new("lengths of time cannot be compared")
                .suggest("compare times, as in last_order_at < now() - interval '180 days'")
                .at(self.span(left)));
        }
        if left_kind.compares_with(right_kind) {
            return Ok(());
        }
        // A text that writes a time is a time.
        for (text, other) in [(left, right), (right, left)] {
            if let (Expr::Literal(value, _), Kind::Time | Kind::Day) = (text, self.kind(other))
                && self.kind(text) == Kind::Text
                && let Ok(target) = other.get_type(self.schema)
            {
                return value.cast_to(&target).map(|_| ()).map_err(|_| {
                    let form = if matches!(self.kind(other), Kind::Day) { "'2026-01-31'" } else { "'2026-01-31' or '2026-01-31 18:30:00'" };
                    Complaint::new(format!("{} is no time, and is compared with {}", shown(text), shown(other)))
                        .suggest(format!("write {form}"))
                        .at(self.span(text))
                });
            }
        }
        let message =
            format!("{} is {}, and {} is {}: they cannot be compared", shown(left), left_kind.words(), shown(right), right_kind.words());
        let mut complaint = Complaint::new(message).at(self.span(right)).at(self.span(left));
        for (one, other) in [(left, right), (right, left)] {
            let suggestion = match (self.kind(one), self.kind(other), other) {
                (Kind::Text, Kind::Number, Expr::Literal(value, _)) => format!("write '{value}'"),
                (Kind::Number, Kind::Text, Expr::Literal(value, _)) if value.to_string().parse::<f64>().is_ok() => {
                    format!("write {value} without quotes")
                }
                (Kind::Boolean, Kind::Number | Kind::Text, Expr::Literal(..)) => format!("write {} or not {}", shown(one), shown(one)),
                _ => continue,
            };
            complaint = complaint.suggest(suggestion);
        }
        Err(complaint)
    }

    fn arithmetic(&self, left: &Expr, op: Operator, right: &Expr) -> Result<(), Complaint> {
        use Kind::{Day, Interval, Null, Number, Other, Time};
        let (left_kind, right_kind) = (self.kind(left), self.kind(right));
        let fits = match (left_kind, right_kind) {
            (Null | Other, _) | (_, Null | Other) | (Number, Number) | (Interval, Interval) => true,
            (Time | Day, Interval) | (Interval, Time | Day) | (Time | Day, Time | Day) => matches!(op, Operator::Plus | Operator::Minus),
            (Interval, Number) | (Number, Interval) => matches!(op, Operator::Multiply | Operator::Divide),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let message = format!("`{op}` does not work on {} and {}", left_kind.words(), right_kind.words());
        let blame = if matches!(left_kind, Kind::Text | Kind::Boolean) { left } else { right };
        let complaint = Complaint::new(message).at(self.span(blame));
        Err(match (left_kind, right_kind, right) {
            (Time | Day, Number | Kind::Text, Expr::Literal(value, _)) => {
                let days = value.to_string();
                let days = days.trim_end_matches(" days");
                complaint.suggest(format!("for days, write interval '{days} days'"))
            }
            (Kind::Text, _, _) | (_, Kind::Text, _) if op == Operator::Plus => complaint.suggest("to join texts, write ||"),
            _ => complaint,
        })
    }

    fn function(&self, function: &ScalarFunction, expr: &Expr) -> Result<(), Complaint> {
        let Err(error) = expr.get_type(self.schema) else { return Ok(()) };
        let names = std::iter::once(function.name()).chain(function.func.aliases().iter().map(String::as_str));
        let (name, span) = names.filter_map(|name| Some((name, self.scan.find(name)?))).next().unzip();
        let name = name.unwrap_or(function.name());
        let kinds: Vec<&str> = function.args.iter().map(|arg| self.kind(arg).words()).collect();
        let message =
            if kinds.is_empty() { format!("{name}() needs arguments") } else { format!("{name} does not take ({})", kinds.join(", ")) };
        let complaint = Complaint::new(message).at(span);
        Err(match error.strip_backtrace().split("expects ").nth(1).and_then(|rest| rest.lines().next()) {
            Some(expects) => complaint.suggest(format!("it expects {expects}")),
            None => complaint,
        })
    }
}

/// Whether the types fit without reading a column of texts as something else, or a column of numbers as
/// conditions, which DataFusion does unasked. `expr` has been coerced, and what its author cast himself is
/// no [`Expr::Cast`] any more.
pub(crate) fn check_coerced(expr: &Expr, schema: &DFSchema, scan: &Scan) -> Result<(), Complaint> {
    let mut found = None;
    let walked = expr.apply(|node| {
        if let Expr::Cast(cast) = node
            && !matches!(cast.expr.as_ref(), Expr::Literal(..))
        {
            let from = Kind::of(&cast.expr.get_type(schema)?);
            let to = Kind::of(cast.field.data_type());
            if (from == Kind::Text || to == Kind::Boolean) && from != to && from != Kind::Null {
                let inner = shown(&cast.expr);
                let complaint = Complaint::new(format!("{inner} is {}, where {} is needed", from.words(), to.words()));
                let span = match cast.expr.as_ref() {
                    Expr::Column(column) => scan.find(&column.name),
                    _ => None,
                };
                found = Some(match to {
                    Kind::Boolean => complaint.suggest(comparison_for(&inner, from)).at(span),
                    _ => complaint.at(span),
                });
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| translate(&error, "", scan, &[]))?;
    found.map_or(Ok(()), Err)
}

pub(crate) fn subquery() -> Complaint {
    Complaint::new("a rule cannot select from tables: it looks at the columns of one member")
}

/// The expression as its author would write it.
fn shown(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => format!("`{}`", column.name),
        Expr::Literal(value, _) if matches!(Kind::of(&value.data_type()), Kind::Text) => format!("'{value}'"),
        Expr::Literal(value, _) => value.to_string(),
        Expr::ScalarFunction(function) => format!("{}(…)", function.name()),
        other => {
            let text = other.human_display().to_string();
            if text.chars().count() > 60 { "the value".to_owned() } else { format!("`{text}`") }
        }
    }
}
