//! The words of a campaign: minijinja templates over a member's columns.
//!
//! Variables are the columns of members but `phone`, and those of [`EXTRAS`]. A template that names
//! anything else does not compile. Amounts are numbers and are written `399` or `399.50`; moments are
//! texts like `2026-03-25 10:11:12` on the clock of the config's timezone, and days like `2026-03-25`.
//! Filters, beside minijinja's own:
//!
//! - `|date` writes the day of a moment or day, `|date("%-m月%-d日")` in another form (strftime);
//! - `|amount` writes a number with a comma at each thousand: `1,280` or `1,280.50`.
//!
//! A value that is null can be asked for (`{% if name %}`, `{{ name | default("会员") }}`) but not be
//! written: then the member gets no task ([`reunion_model::Gate::Incomplete`]).

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use minijinja::value::{Object, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use reunion_model::Phone;
use reunion_model::limits::MESSAGE_CHARS_MAX;

use crate::clock;

/// The variables that are no columns, and what they hold.
pub const EXTRAS: [(&str, &str); 5] = [
    ("campaign", "the campaign's name"),
    ("channel", "the channel's name"),
    ("phone_tail", "the last four digits of the member's phone"),
    ("today", "the day of the run's clock"),
    ("due", "the day on which the task is due, null without due_days"),
];

/// The member's phone is never a variable: a message would carry it past every mask.
const PHONE: &str = "phone";
/// Steps of one rendering, far above what a message needs: a loop without end is stopped.
const FUEL: u64 = 100_000;
const NAME: &str = "text";

/// A template that compiled.
#[derive(Clone)]
pub struct Template {
    environment: Environment<'static>,
    columns: Vec<String>,
    required: Vec<String>,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", suggestion.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?")))]
pub struct TemplateError {
    /// What is wrong, in a sentence without its place.
    pub message: String,
    /// The line of the text, from 1.
    pub line: usize,
    /// The bytes of the text to blame, where they are known.
    pub range: Option<Range<usize>>,
    /// The nearest right name.
    pub suggestion: Option<String>,
    /// The column that is not there, where that is what is wrong.
    pub unknown_column: Option<String>,
}

/// Why there is no text for a member. Says nothing of the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A value is null that the text needs, or is of no use there.
    #[error("a value that the text needs is null or does not fit")]
    Incomplete,
    /// It is longer than [`MESSAGE_CHARS_MAX`], or takes too many steps.
    #[error("the text is longer than {MESSAGE_CHARS_MAX} characters or takes too many steps")]
    TooLong,
}

impl Template {
    /// Compiles a text that may name the columns of `members`, and tries it on an invented member.
    ///
    /// # Errors
    /// Everything that is wrong with it: syntax, and names of variables, filters and tests that do not
    /// exist.
    pub fn compile(text: &str, members: &Schema) -> Result<Self, Vec<TemplateError>> {
        let mut environment = environment();
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| vec![TemplateError::from_engine(&error, text)])?;
        let mut variables: Vec<String> = match environment.get_template(NAME) {
            Ok(template) => template.undeclared_variables(false).into_iter().collect(),
            Err(error) => return Err(vec![TemplateError::from_engine(&error, text)]),
        };
        variables.retain(|name| environment.globals().all(|(global, _)| global != name));
        variables.sort_unstable();
        let errors: Vec<_> = variables.iter().filter_map(|name| unusable(name, members, text)).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let columns = variables.into_iter().filter(|name| !is_extra(name)).collect();
        let mut template = Self { environment, columns, required: Vec::new() };
        template.required = template.rehearse(members).map_err(|error| vec![TemplateError::from_engine(&error, text)])?;
        Ok(template)
    }

    /// The columns of members that it names, sorted.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Those columns without which it gives no text.
    pub fn required(&self) -> &[String] {
        &self.required
    }

    /// The text for one member.
    ///
    /// # Errors
    /// Where a value is null that it needs, or it becomes too long.
    pub fn render(&self, values: &Values) -> Result<String, RenderError> {
        self.try_render(values).map_err(|error| match error.kind() {
            ErrorKind::WriteFailure | ErrorKind::OutOfFuel => RenderError::TooLong,
            _ => RenderError::Incomplete,
        })
    }

    fn try_render(&self, values: &Values) -> Result<String, Error> {
        let mut out = Bounded { bytes: Vec::new(), bytes_max: MESSAGE_CHARS_MAX * 4 };
        let values = Value::from_dyn_object(Arc::new(values.clone()));
        self.environment.get_template(NAME)?.render_captured_to(values, &mut out)?;
        let text = String::from_utf8(out.bytes).map_err(|_| Error::new(ErrorKind::WriteFailure, "the text is no UTF-8"))?;
        if text.chars().count() > MESSAGE_CHARS_MAX {
            return Err(Error::new(ErrorKind::WriteFailure, "the text is too long"));
        }
        Ok(text)
    }

    /// Renders the template with invented values, then once more without each of its columns, and
    /// gives the columns that it cannot do without.
    fn rehearse(&self, members: &Schema) -> Result<Vec<String>, Error> {
        let mut values = Values::default();
        for name in &self.columns {
            if let Some(sample) = members.field_with_name(name).ok().and_then(|field| sample(field.data_type())) {
                values.set(name, sample);
            }
        }
        for (name, _) in EXTRAS {
            values.set(name, Value::from("2026-03-25"));
        }
        self.try_render(&values)?;
        let mut required = Vec::new();
        for name in &self.columns {
            match self.try_render(&values.without(name)) {
                Ok(_) => {}
                Err(error) if is_defect(error.kind()) => return Err(error),
                Err(_) => required.push(name.clone()),
            }
        }
        Ok(required)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.columns.join(", "))
    }
}

impl TemplateError {
    fn from_engine(error: &Error, text: &str) -> Self {
        let line = error.line().unwrap_or(1);
        let detail = error.detail().unwrap_or_default();
        let message = match error.kind() {
            ErrorKind::UndefinedError => "it writes a part of a value that has no parts".to_owned(),
            ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
            ErrorKind::WriteFailure => format!("it is longer than {MESSAGE_CHARS_MAX} characters"),
            kind if detail.is_empty() => kind.to_string(),
            ErrorKind::SyntaxError => format!("it cannot be read: {detail}"),
            _ => detail.to_owned(),
        };
        let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let length = text[start..].find('\n').unwrap_or(text.len() - start);
        Self { message, line, range: Some(start..start + length), suggestion: None, unknown_column: None }
    }
}

/// Why a name cannot be a variable of a template over these members.
fn unusable(name: &str, members: &Schema, text: &str) -> Option<TemplateError> {
    if is_extra(name) {
        return None;
    }
    let (message, suggestion) = match members.field_with_name(name) {
        _ if name == PHONE => ("a text cannot hold the phone".to_owned(), Some("phone_tail".to_owned())),
        Ok(field) if sample(field.data_type()).is_some() => return None,
        Ok(field) => (format!("the column `{name}` has the type {}, which cannot be written", field.data_type()), None),
        Err(_) => (format!("there is no column `{name}`"), nearest(name, members)),
    };
    let unknown_column = members.field_with_name(name).is_err().then(|| name.to_owned()).filter(|name| name != PHONE);
    let range = find_in_tags(text, name);
    let line = range.as_ref().map_or(1, |range| text[..range.start].matches('\n').count() + 1);
    Some(TemplateError { message, line, range, suggestion, unknown_column })
}

fn is_extra(name: &str) -> bool {
    EXTRAS.iter().any(|(extra, _)| *extra == name)
}

fn nearest(name: &str, members: &Schema) -> Option<String> {
    let columns = members.fields().iter().map(|field| field.name().as_str()).filter(|column| *column != PHONE);
    let names = columns.chain(EXTRAS.iter().map(|(extra, _)| *extra));
    let (likeness, best) = names.map(|other| (strsim::jaro_winkler(name, other), other)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness > 0.8).then(|| best.to_owned())
}

/// The first place where a template names this variable.
fn find_in_tags(text: &str, name: &str) -> Option<Range<usize>> {
    let mut start = 0;
    while let Some(open) = text[start..].find("{{").into_iter().chain(text[start..].find("{%")).min() {
        let from = start + open + 2;
        let to = text[from..].find("}}").into_iter().chain(text[from..].find("%}")).min().map_or(text.len(), |length| from + length);
        let word = |c: char| c.is_alphanumeric() || c == '_';
        for (at, _) in text[from..to].match_indices(name) {
            let at = from + at;
            if !text[..at].ends_with(word) && !text[at + name.len()..].starts_with(word) {
                return Some(at..at + name.len());
            }
        }
        start = to;
    }
    None
}

/// Whether an error is the template's and not a value's.
fn is_defect(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction | ErrorKind::UnknownMethod)
}

/// The values of one member for one task.
#[derive(Debug, Clone, Default)]
pub struct Values(Vec<(String, Value)>);

impl Values {
    /// Sets a variable to a text.
    pub fn text(&mut self, name: &str, value: &str) {
        self.set(name, Value::from(value));
    }

    /// Sets the last four digits of the phone.
    pub fn phone(&mut self, phone: Phone) {
        self.set("phone_tail", Value::from(format!("{:04}", phone.e164_digits() % 10_000)));
    }

    /// Sets a variable to the value of a column; a null leaves it unset.
    pub fn column(&mut self, name: &str, array: &ArrayRef, row: usize, timezone: &TimeZone) {
        if let Some(value) = value(array, row, timezone) {
            self.set(name, value);
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), value));
    }

    fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(other, _)| other != name).cloned().collect())
    }
}

impl Object for Values {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }
}

fn value(array: &ArrayRef, row: usize, timezone: &TimeZone) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(row)),
        DataType::Boolean => Value::from(array.as_boolean().value(row)),
        DataType::Int32 => Value::from(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => Value::from(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => Value::from(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            Value::from(array.as_primitive::<Decimal128Type>().value(row) as f64 / 10_f64.powi(i32::from(*scale)))
        }
        DataType::Date32 => Value::from(array.as_primitive::<Date32Type>().value_as_date(row)?.to_string()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let moment = clock::local(array.as_primitive::<TimestampMicrosecondType>().value(row), timezone);
            Value::from(moment.strftime("%Y-%m-%d %H:%M:%S").to_string())
        }
        DataType::FixedSizeBinary(_) => Value::from(hex::encode(array.as_fixed_size_binary().value(row))),
        _ => return None,
    })
}

/// A value such as [`value`] gives for a column of this type; `None` where it gives none.
fn sample(kind: &DataType) -> Option<Value> {
    Some(match kind {
        DataType::Utf8 => Value::from("text"),
        DataType::Boolean => Value::from(true),
        DataType::Int32 | DataType::Int64 | DataType::UInt64 => Value::from(1),
        DataType::Decimal128(..) => Value::from(1.5),
        DataType::Date32 => Value::from("2026-03-25"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Value::from("2026-03-25 10:11:12"),
        DataType::FixedSizeBinary(16) => Value::from("00000000000000000000000000000000"),
        _ => return None,
    })
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("date", date);
    environment.add_filter("amount", |number: f64| thousands(&plain(number)));
    environment.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::Number
            && !value.is_integer()
            && let Ok(number) = f64::try_from(value.clone())
        {
            return out.write_str(&plain(number)).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
    environment
}

/// The filter `date`.
fn date(text: String, format: Option<String>) -> Result<String, Error> {
    let moment = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|day| day.to_datetime(jiff::civil::Time::midnight())));
    let moment = moment.map_err(|_| Error::new(ErrorKind::InvalidOperation, "`date` is for moments and days"))?;
    let format = format.as_deref().unwrap_or("%Y-%m-%d");
    jiff::fmt::strtime::format(format, moment)
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("`date` cannot write a day as {format:?}")))
}

/// A number as an amount is written: whole, or with two places.
fn plain(number: f64) -> String {
    let text = format!("{number:.2}");
    text.strip_suffix(".00").map_or_else(|| text.clone(), str::to_owned)
}

fn thousands(text: &str) -> String {
    let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
    let whole = digits.find('.').unwrap_or(digits.len());
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && at < whole && (whole - at) % 3 == 0 && digit.is_ascii_digit() {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Takes bytes up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use insta::assert_snapshot;
    use reunion_model::schema::ColumnType;

    fn members() -> Schema {
        Schema::new(vec![
            Field::new("member_id", DataType::FixedSizeBinary(16), false),
            Field::new("phone", DataType::UInt64, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("store", DataType::Utf8, true),
            Field::new("total_spent", ColumnType::Decimal.arrow(), true),
            Field::new("last_order_at", ColumnType::Timestamp.arrow(), true),
            Field::new("picture", DataType::Binary, true),
        ])
    }

    fn values() -> Values {
        let mut values = Values::default();
        let name: ArrayRef = Arc::new(StringArray::from(vec!["王女士"]));
        let spent: ArrayRef = Arc::new(Decimal128Array::from(vec![123_456_750]).with_precision_and_scale(18, 2).unwrap());
        let ordered: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_747_591_200_000_000]).with_timezone("UTC"));
        let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
        values.column("name", &name, 0, &shanghai);
        values.column("total_spent", &spent, 0, &shanghai);
        values.column("last_order_at", &ordered, 0, &shanghai);
        values.phone(Phone::from_china_mobile(13900010421));
        values
    }

    fn render(text: &str) -> String {
        Template::compile(text, &members()).unwrap().render(&values()).unwrap()
    }

    fn mistakes(text: &str) -> String {
        let errors = Template::compile(text, &members()).unwrap_err();
        let lines = errors.iter().map(|e| format!("{}: {e} [{}]", e.line, e.range.clone().map_or("", |range| &text[range])));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn values_are_written_as_people_write_them() {
        assert_snapshot!(render("{{ name }} 尾号{{ phone_tail }} {{ total_spent }} {{ total_spent | amount }} {{ 399.0 }}"), @"王女士 尾号0421 1234567.50 1,234,567.50 399");
        assert_snapshot!(render("{{ last_order_at }} {{ last_order_at | date }} {{ last_order_at | date('%-m月%-d日') }}"), @"2025-05-19 02:00:00 2025-05-19 5月19日");
        assert_snapshot!(render("{% if total_spent > 1000 %}key{% endif %}{% if store %}no{% endif %} {{ store | default('本店') }}"), @"key 本店");
        assert_eq!((thousands("-1280"), thousands("999"), plain(-0.5)), ("-1,280".into(), "999".into(), "-0.50".into()));
    }

    #[test]
    fn a_null_can_be_asked_for_but_not_written() {
        let template = Template::compile("{{ name }}{% if store %}{{ store }}{% endif %}", &members()).unwrap();
        assert_eq!((template.columns().len(), template.required()), (2, &["name".to_owned()][..]));
        assert_eq!(template.render(&Values::default()), Err(RenderError::Incomplete));
        assert_eq!(template.render(&values()).as_deref(), Ok("王女士"));
        let filtered = Template::compile("{{ last_order_at | date }}{{ total_spent | amount }}", &members()).unwrap();
        assert_eq!(filtered.required(), ["last_order_at", "total_spent"]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        assert_snapshot!(mistakes("您好 naem\n{{ naem }}, {{ stroe }}"), @r"
        2: there is no column `naem`; did you mean `name`? [naem]
        2: there is no column `stroe`; did you mean `store`? [stroe]
        ");
        assert_snapshot!(mistakes("{{ phone }}"), @"1: a text cannot hold the phone; did you mean `phone_tail`? [phone]");
        assert_snapshot!(mistakes("{{ picture }}"), @"1: the column `picture` has the type Binary, which cannot be written [picture]");
        assert_snapshot!(mistakes("{{ zzz }}"), @"1: there is no column `zzz` [zzz]");
        assert_snapshot!(mistakes("好\n{{ name "), @"2: it cannot be read: unexpected end of input, expected end of variable block [{{ name ]");
        assert_snapshot!(mistakes("{{ name | shout }}"), @"1: filter shout is unknown [{{ name | shout }}]");
        assert_snapshot!(mistakes("{{ name | date }}"), @"1: `date` is for moments and days [{{ name | date }}]");
        assert_snapshot!(mistakes("{{ last_order_at | date('%Q!') }}"), @r#"1: `date` cannot write a day as "%Q!" [{{ last_order_at | date('%Q!') }}]"#);
        assert_snapshot!(mistakes("{{ name.first }}"), @"1: it writes a part of a value that has no parts [{{ name.first }}]");
        assert_snapshot!(mistakes("{% if name %}x{% else %}{{ 1 | shout }}{% endif %}"), @"1: filter shout is unknown [{% if name %}x{% else %}{{ 1 | shout }}{% endif %}]");
    }

    #[test]
    fn a_text_without_end_is_stopped() {
        assert_snapshot!(mistakes("{% for i in range(99999) %}x{% endfor %}"), @"1: it is longer than 4000 characters [{% for i in range(99999) %}x{% endfor %}]");
        assert_snapshot!(mistakes("{% for i in range(99999) %}{% endfor %}"), @"1: it takes too many steps [{% for i in range(99999) %}{% endfor %}]");
        let long = "x".repeat(MESSAGE_CHARS_MAX);
        assert!(Template::compile(&long, &members()).is_ok());
        assert_snapshot!(mistakes(&"x".repeat(4001)).split(" [").next().unwrap(), @"1: it is longer than 4000 characters");
    }
}
