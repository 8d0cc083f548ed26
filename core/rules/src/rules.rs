//! Compiling: from the texts of a config to expressions that can be evaluated.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::session_state::SessionState;
use datafusion::functions::expr_fn::nullif;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::DFParserBuilder;
use reunion_model::schema::DERIVED;

use crate::check::{check_coerced, check_rule, subquery};
use crate::engine::Clock;
use crate::parallel::on_deep_stack;
use crate::scan::{Complaint, Scan};
use crate::tags::since_column;
use crate::translate::{nearest, translate};
use crate::{RuleError, RuleName};

/// 2026-01-01T00:00:00Z, the clock by which rules are tried out when they are compiled.
const TRIAL_CLOCK_US: i64 = 1_767_225_600_000_000;

/// `[tags.NAME] when`, in the order of the config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRule {
    /// The tag.
    pub name: String,
    /// The expression.
    pub when: String,
}

/// `[campaigns.NAME] audience`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceRule {
    /// The campaign.
    pub campaign: String,
    /// The expression.
    pub audience: String,
}

/// The rules of a config, found to be right.
#[derive(Debug, Clone)]
pub struct Rules {
    tags: Vec<TagRule>,
    audiences: Vec<AudienceRule>,
    timezone: String,
    /// The columns that rules name, tags aside, in the order in which they were given.
    columns: Vec<FieldRef>,
    names_used: BTreeSet<String>,
    columns_used: BTreeSet<String>,
}

/// Rules at a run's clock, ready to be evaluated.
#[derive(Debug)]
pub struct BoundRules {
    pub(crate) clock: Clock,
    /// The columns to take from the members, in the types in which rules see them.
    pub(crate) columns: Vec<FieldRef>,
    pub(crate) tags: Vec<BoundTag>,
    pub(crate) audiences: Vec<BoundRule>,
}

#[derive(Debug)]
pub(crate) struct BoundTag {
    pub(crate) rule: BoundRule,
    pub(crate) name: String,
    /// Whether a later rule names `x`, and `x_since`.
    pub(crate) is_used: bool,
    pub(crate) since_is_used: bool,
}

#[derive(Debug)]
pub(crate) struct BoundRule {
    pub(crate) name: RuleName,
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    /// The columns that are there when the rule is evaluated: the members', then those of earlier tags.
    pub(crate) schema: SchemaRef,
}

impl Rules {
    /// Compiles the rules. `columns` are all columns that a rule may name, see [`crate::rule_schema`];
    /// `timezone` is an IANA name. Moments are seen in it, ids and phones as text.
    ///
    /// In a rule, dividing by zero and casting a value that does not fit give null.
    ///
    /// # Errors
    /// Every rule that is wrong, with what is wrong first in each.
    pub fn compile(columns: &Schema, tags: &[TagRule], audiences: &[AudienceRule], timezone: &str) -> Result<Self, Vec<RuleError>> {
        on_deep_stack(|| Self::compile_here(columns, tags, audiences, timezone))
    }

    fn compile_here(columns: &Schema, tags: &[TagRule], audiences: &[AudienceRule], timezone: &str) -> Result<Self, Vec<RuleError>> {
        let names = tags.iter().map(|tag| RuleName::Tag(tag.name.clone()));
        let names: Vec<RuleName> = names.chain(audiences.iter().map(|rule| RuleName::Audience(rule.campaign.clone()))).collect();
        let for_all = |message: String| names.iter().map(|name| error(name, Complaint::new(message.clone()))).collect::<Vec<_>>();
        let clock = Clock::new(TRIAL_CLOCK_US, timezone).map_err(for_all)?;
        let session = clock.session(SessionConfig::new(), None).map_err(|error| for_all(error.strip_backtrace()))?;

        let mut errors = Vec::new();
        let mut visible: Vec<FieldRef> = columns.fields().iter().map(|field| presented(&clock, field)).collect();
        let given = visible.len();
        let mut names_used = BTreeSet::new();
        for (at, tag) in tags.iter().enumerate() {
            let name = RuleName::Tag(tag.name.clone());
            match tag_name_fits(&tag.name, columns, &tags[..at]) {
                Ok(()) => {
                    match (Planner { session: &session, fields: &visible, later: &tags[at..] }).try_out(&tag.when) {
                        Ok(used) => names_used.extend(used),
                        Err(complaint) => errors.push(error(&name, complaint)),
                    }
                    visible.extend(tag_fields(&clock, &tag.name));
                }
                Err(complaint) => errors.push(error(&name, complaint)),
            }
        }
        for rule in audiences {
            match (Planner { session: &session, fields: &visible, later: &[] }).try_out(&rule.audience) {
                Ok(used) => names_used.extend(used),
                Err(complaint) => errors.push(error(&RuleName::Audience(rule.campaign.clone()), complaint)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let columns: Vec<FieldRef> = visible[..given].iter().filter(|field| names_used.contains(field.name())).cloned().collect();
        let columns_used = columns.iter().map(|field| field.name().clone()).collect();
        Ok(Self { tags: tags.to_vec(), audiences: audiences.to_vec(), timezone: timezone.to_owned(), columns, names_used, columns_used })
    }

    /// The columns of the members that the rules read, derived ones among them, tags not.
    pub fn columns_used(&self) -> &BTreeSet<String> {
        &self.columns_used
    }

    /// The names of the tags, in the order of the config.
    pub fn tag_names(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(|tag| tag.name.as_str())
    }

    /// The rules at a clock, microseconds UTC.
    ///
    /// # Errors
    /// Where the clock is outside of the calendar, or a rule leaves it by its arithmetic.
    pub fn bind(&self, clock_us: i64) -> Result<BoundRules, Vec<RuleError>> {
        on_deep_stack(|| self.bind_here(clock_us))
    }

    fn bind_here(&self, clock_us: i64) -> Result<BoundRules, Vec<RuleError>> {
        let first = self.tags.first().map(|tag| RuleName::Tag(tag.name.clone()));
        let first = first.or_else(|| self.audiences.first().map(|rule| RuleName::Audience(rule.campaign.clone())));
        let first = first.unwrap_or_else(|| RuleName::Tag(String::new()));
        let clock = Clock::new(clock_us, &self.timezone).map_err(|message| vec![error(&first, Complaint::new(message))])?;
        let session = clock.session(SessionConfig::new(), None);
        let session = session.map_err(|problem| vec![error(&first, Complaint::new(problem.strip_backtrace()))])?;

        let mut errors = Vec::new();
        let mut fields = self.columns.clone();
        let mut tags = Vec::new();
        for tag in &self.tags {
            let name = RuleName::Tag(tag.name.clone());
            let since_name = since_column(&tag.name);
            match (Planner { session: &session, fields: &fields, later: &[] }).bind(&tag.when, name.clone()) {
                Ok(rule) => {
                    let is_used = self.names_used.contains(&tag.name);
                    tags.push(BoundTag { rule, name: tag.name.clone(), is_used, since_is_used: self.names_used.contains(&since_name) });
                }
                Err(complaint) => errors.push(error(&name, complaint)),
            }
            fields.extend(tag_fields(&clock, &tag.name).into_iter().filter(|field| self.names_used.contains(field.name())));
        }
        let mut audiences = Vec::new();
        for rule in &self.audiences {
            let name = RuleName::Audience(rule.campaign.clone());
            match (Planner { session: &session, fields: &fields, later: &[] }).bind(&rule.audience, name.clone()) {
                Ok(rule) => audiences.push(rule),
                Err(complaint) => errors.push(error(&name, complaint)),
            }
        }
        if errors.is_empty() { Ok(BoundRules { clock, columns: self.columns.clone(), tags, audiences }) } else { Err(errors) }
    }
}

fn error(rule: &RuleName, complaint: Complaint) -> RuleError {
    let Complaint { message, suggestion, span, unknown_column } = complaint;
    RuleError { rule: rule.clone(), message, span, suggestion, unknown_column }
}

fn presented(clock: &Clock, field: &FieldRef) -> FieldRef {
    let kind = clock.presented_type(field.name(), field.data_type());
    // Nullable whatever the schema says, so that no rule is simplified on a promise.
    Arc::new(Field::new(field.name(), kind, true))
}

fn tag_fields(clock: &Clock, tag: &str) -> [FieldRef; 2] {
    [Arc::new(Field::new(tag, DataType::Boolean, false)), Arc::new(Field::new(since_column(tag), clock.moment_type(), true))]
}

/// Whether a tag's name can stand in rules and means one thing.
fn tag_name_fits(name: &str, columns: &Schema, earlier: &[TagRule]) -> Result<(), Complaint> {
    let plain = |char: char| char == '_' || (char.is_alphanumeric() && !char.is_ascii_uppercase());
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|char: char| char.is_numeric()) {
        return Err(Complaint::new(format!("`{name}` is no name for a tag")).suggest("use small letters, digits and _, a letter first"));
    }
    // A word of SQL, such as `end`, does not read as a column.
    let reads_as_column = DFParserBuilder::new(name).build().and_then(|mut parser| parser.parse_into_expr());
    if !reads_as_column.is_ok_and(|expr| matches!(&expr.expr, datafusion::sql::sqlparser::ast::Expr::Identifier(_))) {
        return Err(Complaint::new(format!("`{name}` is a word of SQL and no name for a tag")));
    }
    for column in [name.to_owned(), since_column(name)] {
        let taken = if columns.field_with_name(&column).is_ok() || DERIVED.iter().any(|derived| derived.name == column) {
            "a column of the members"
        } else if earlier.iter().any(|tag| tag.name == column) {
            "an earlier tag"
        } else if earlier.iter().any(|tag| since_column(&tag.name) == column) {
            "the time of an earlier tag"
        } else {
            continue;
        };
        return Err(Complaint::new(format!("the name `{column}` is taken by {taken}")).suggest("give the tag another name"));
    }
    Ok(())
}

/// Plans rules over one set of columns.
struct Planner<'a> {
    session: &'a SessionState,
    fields: &'a [FieldRef],
    /// The rule's own tag and those after it, which it may not name.
    later: &'a [TagRule],
}

impl Planner<'_> {
    /// The names that a rule uses, where it is right.
    fn try_out(&self, text: &str) -> Result<BTreeSet<String>, Complaint> {
        let scan = Scan::of(text, "rule").map_err(|complaint| complaint.suggest_if_none("write a condition, such as order_count > 0"))?;
        let (schema, logical) = self.logical(text, &scan)?;
        let names = logical.column_refs().into_iter().map(|column| column.name.clone()).collect();
        let physical = self.physical(&schema, logical, text, &scan)?;
        // What only shows when it runs, such as a text that is no time.
        let columns = self.fields.iter().map(|field| if field.is_nullable() { new_null_array(field.data_type(), 1) } else { one_false() });
        let nullable: Vec<Field> = self.fields.iter().map(|field| field.as_ref().clone()).collect();
        let row = RecordBatch::try_new_with_options(
            Arc::new(Schema::new(nullable)),
            columns.collect(),
            &RecordBatchOptions::new().with_row_count(Some(1)),
        );
        let tried = row.map_err(DataFusionError::from).and_then(|row| physical.evaluate(&row));
        tried.map_err(|error| self.translate(&error, text, &scan))?;
        Ok(names)
    }

    fn bind(&self, text: &str, name: RuleName) -> Result<BoundRule, Complaint> {
        let scan = Scan::of(text, "rule")?;
        let (schema, logical) = self.logical(text, &scan)?;
        let expr = self.physical(&schema, logical, text, &scan)?;
        Ok(BoundRule { name, expr, schema: Arc::clone(schema.inner()) })
    }

    fn logical(&self, text: &str, scan: &Scan) -> Result<(DFSchema, Expr), Complaint> {
        if let Some(span) = scan.keyword("select") {
            return Err(subquery().at(Some(span)));
        }
        let translated = |error: DataFusionError| self.translate(&error, text, scan);
        let schema = Schema::new(self.fields.to_vec());
        let schema = DFSchema::try_from(schema).map_err(translated)?;
        let dialect = self.session.config().options().sql_parser.dialect;
        let sql = self.session.sql_to_expr_with_alias(text, &dialect).map_err(translated)?;
        if let Some(alias) = &sql.alias {
            let complaint = Complaint::new("a rule has no `as`: its name is its key in the config");
            return Err(complaint.at(scan.find(&alias.value)));
        }
        let expr = self.session.create_logical_expr_from_sql_expr(sql, &schema).map_err(translated)?;
        check_rule(&expr, &schema, scan)?;
        Ok((schema, expr))
    }

    fn physical(&self, schema: &DFSchema, expr: Expr, text: &str, scan: &Scan) -> Result<Arc<dyn PhysicalExpr>, Complaint> {
        let translated = |error: DataFusionError| self.translate(&error, text, scan);
        let config = self.session.config_options();
        let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).with_config_options(Arc::clone(config)).build();
        let simplifier = ExprSimplifier::new(context);
        let expr = forgiving(expr, schema).and_then(|expr| simplifier.coerce(expr, schema)).map_err(translated)?;
        check_coerced(&expr, schema, scan)?;
        let expr = simplifier.simplify(expr).map_err(translated)?;
        let mut props = ExecutionProps::new();
        props.config_options = Some(Arc::clone(config));
        create_physical_expr(&expr, schema, &props, &PhysicalPlanningContext::default()).map_err(translated)
    }

    fn translate(&self, error: &DataFusionError, text: &str, scan: &Scan) -> Complaint {
        let columns: Vec<&str> = self.fields.iter().map(|field| field.name().as_str()).collect();
        let complaint = translate(error, text, scan, &columns);
        let Some(name) = complaint.unknown_column.as_deref() else { return complaint };
        let later = |tag: &&TagRule| tag.name == name || since_column(&tag.name) == name;
        match self.later.iter().position(|tag| later(&tag)) {
            Some(0) => Complaint { unknown_column: None, suggestion: None, ..complaint.clone() }
                .say(format!("`{name}` is the tag's own: a tag cannot name itself")),
            Some(_) => Complaint { unknown_column: None, ..complaint.clone() }
                .say(format!("the tag `{name}` comes later, and tags may name earlier tags only"))
                .suggest(format!("move `{name}` before this one in the config")),
            None if complaint.suggestion.is_none() => match nearest(name, self.later.iter().skip(1).map(|tag| tag.name.as_str())) {
                Some(near) => {
                    complaint.suggest(format!("did you mean the tag `{near}`? It comes later, and tags may name earlier tags only"))
                }
                None => complaint,
            },
            None => complaint,
        }
    }
}

fn one_false() -> arrow::array::ArrayRef {
    Arc::new(arrow::array::BooleanArray::from(vec![false]))
}

/// The expression with null where it would fail on a member: dividing by zero, casting what does not fit.
/// A literal is cast as it stands, so that a wrong one is found at once.
fn forgiving(expr: Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
    let transformed = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::Cast(Cast { expr, field }) if !matches!(expr.as_ref(), Expr::Literal(..)) => {
                Transformed::yes(Expr::TryCast(TryCast { expr, field }))
            }
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right })
                if right.get_type(schema).is_ok_and(|kind| kind.is_numeric()) && !is_safe_divisor(&right) =>
            {
                let right = Box::new(nullif(*right, lit(0_i64)));
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            other => Transformed::no(other),
        })
    });
    Ok(transformed?.data)
}

fn is_safe_divisor(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null() && ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| *value != zero))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
