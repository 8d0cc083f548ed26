//! What is wrong with an expression or a query, in plain words.
//!
//! Types are checked here, before DataFusion would coerce them: it takes `store = 12` for a comparison of
//! numbers and fails on the first store that is none. What is left for DataFusion to find is translated.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{DFSchema, DataFusionError, Result as FusionResult, SchemaError};
use datafusion::logical_expr::expr::{Between, InList, Like, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, Volatility};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::scan::{Complaint, Scan, offset};

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
        let kinds: Vec<&str> = function.args.iter().map(|arg| self.kind(arg).words()).collect();
        let message = if kinds.is_empty() {
            format!("{}() needs arguments", function.name())
        } else {
            format!("{} does not take ({})", function.name(), kinds.join(", "))
        };
        let complaint = Complaint::new(message).at(self.scan.find(function.name()));
        Err(match error.strip_backtrace().split("expects ").nth(1).and_then(|rest| rest.lines().next()) {
            Some(expects) => complaint.suggest(format!("it expects {expects}")),
            None => complaint,
        })
    }
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
            let text = other.to_string();
            if text.chars().count() > 60 { "the value".to_owned() } else { format!("`{text}`") }
        }
    }
}

/// An error of DataFusion's in plain words. `columns` are the names that could have been meant.
pub(crate) fn translate(error: &DataFusionError, text: &str, scan: &Scan, columns: &[&str]) -> Complaint {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => translate(inner, text, scan, columns),
        DataFusionError::Shared(inner) => translate(inner, text, scan, columns),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => translate(first, text, scan, columns),
            None => Complaint::new("the text cannot be used"),
        },
        DataFusionError::SQL(error, _) => grammar(error, text),
        DataFusionError::SchemaError(error, _) => match error.as_ref() {
            SchemaError::FieldNotFound { field, .. } => unknown_column(&field.flat_name(), &field.name, scan, columns),
            SchemaError::AmbiguousReference { field } => {
                Complaint::new(format!("`{}` could be a column of more than one table", field.name))
                    .suggest("write the table's name before it, with a point between")
                    .at(scan.find(&field.name))
            }
            other => Complaint::new(one_line(&other.to_string())),
        },
        DataFusionError::Plan(message) => plan(message, scan),
        other => Complaint::new(one_line(other.message().as_ref())),
    }
}

fn unknown_column(full: &str, name: &str, scan: &Scan, columns: &[&str]) -> Complaint {
    let written = scan.as_written(name).unwrap_or(name);
    let mut complaint = Complaint::new(format!("there is no column `{}`", full.replace('"', ""))).at(scan.find(name));
    complaint.unknown_column = Some(name.to_owned());
    if let Some(exact) = columns.iter().find(|column| column.eq_ignore_ascii_case(written) && **column != name) {
        return complaint.suggest(format!("capital letters need double quotes: write \"{exact}\""));
    }
    match nearest(name, columns.iter().copied()) {
        Some(near) => complaint.suggest(format!("did you mean `{near}`?")),
        None if scan.is_double_quoted(name) => complaint.suggest(format!("text stands in single quotes: write '{name}'")),
        None => complaint,
    }
}

fn plan(message: &str, scan: &Scan) -> Complaint {
    let quoted = |prefix: &str| message.split(prefix).nth(1).and_then(|rest| rest.split('\'').next());
    if let Some(name) = quoted("Invalid function '") {
        let complaint = Complaint::new(format!("there is no function {name}()")).at(scan.find(name));
        return match quoted("Did you mean '").filter(|near| strsim::damerau_levenshtein(name, near) <= name.len().div_ceil(3)) {
            Some(near) => complaint.suggest(format!("did you mean {near}()?")),
            None => complaint,
        };
    }
    if let Some(table) = quoted("table '") {
        let table = table.rsplit('.').next().unwrap_or(table);
        return Complaint::new(format!("there is no table `{table}`")).at(scan.find(table));
    }
    Complaint::new(one_line(message))
}

/// `sql parser error: Expected: an expression, found: EOF at Line: 1, Column: 7`
fn grammar(error: &ParserError, text: &str) -> Complaint {
    let message = match error {
        ParserError::RecursionLimitExceeded => return Complaint::new("brackets are nested too deep: the limit is 50"),
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let (message, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
    let place = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(offset(text, Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })));
    let found = place.map(|at| (at, text[at..].split_whitespace().next().map_or(0, str::len)));
    let expected = message.split_once("Expected: ").map(|(_, rest)| rest.rsplit_once(", found: ").map_or(rest, |(expected, _)| expected));
    let complaint = match (expected, message.rsplit_once("found: ").map(|(_, found)| found)) {
        (Some(expected), Some("EOF")) => Complaint::new(format!("the text ends where {expected} should follow")),
        (Some(expected), Some(found)) => Complaint::new(format!("`{found}` stands where {expected} should be")),
        _ => Complaint::new(one_line(message)),
    };
    complaint.at(found.or(Some((text.trim_end().len(), 0))))
}

/// The nearest of these names, where one is near.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let limit = name.chars().count().div_ceil(3).min(4);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name, &candidate.to_lowercase());
    names
        .into_iter()
        .map(|candidate| (distance(&candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// The first line, without the engine's own prefixes.
pub(crate) fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("the text cannot be used");
    let prefixes = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "This feature is not implemented: ",
        "Internal error: ",
        "Optimizer rule ",
    ];
    let mut line = line;
    while let Some(rest) = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)) {
        line = rest;
    }
    line.split(". This issue was likely caused by a bug").next().unwrap_or(line).trim_end_matches('.').to_owned()
}
