//! DataFusion as both rules and queries use it: its functions, with `now()` and its kin at the run's clock.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionConfig;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_US: i64 = 86_400_000_000;

/// The run's clock and the timezone that cuts its days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clock {
    at_us: i64,
    /// What the zone's clocks showed, as if they showed UTC.
    local_us: i64,
    timezone: Arc<str>,
}

impl Clock {
    /// # Errors
    /// A text for the operator, where the timezone is not known or the moment is outside of the calendar.
    pub(crate) fn new(at_us: i64, timezone: &str) -> Result<Self, String> {
        let zone = TimeZone::get(timezone).map_err(|_| format!("the timezone `{timezone}` is not known"))?;
        if timezone.parse::<arrow::array::timezone::Tz>().is_err() {
            return Err(format!("the timezone `{timezone}` is not known"));
        }
        let at = Timestamp::from_microsecond(at_us).map_err(|_| format!("the clock {at_us} µs is outside of the calendar"))?;
        let local_us = at_us.saturating_add(i64::from(zone.to_offset(at).seconds()) * 1_000_000);
        Ok(Self { at_us, local_us, timezone: timezone.into() })
    }

    pub(crate) fn at_us(&self) -> i64 {
        self.at_us
    }

    /// The type in which rules and queries see moments: in the config's timezone, so that days are cut
    /// there and texts without an offset are read there.
    pub(crate) fn moment_type(&self) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(&self.timezone)))
    }

    /// The type in which rules and queries see a column of this type: ids and phones as text.
    pub(crate) fn presented_type(&self, name: &str, stored: &DataType) -> DataType {
        match stored {
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => self.moment_type(),
            DataType::FixedSizeBinary(16) => DataType::Utf8,
            DataType::UInt64 if name == reunion_model::schema::PHONE => DataType::Utf8,
            other => other.clone(),
        }
    }

    /// The session in which texts are planned.
    pub(crate) fn session(&self, config: SessionConfig, runtime: Option<Arc<RuntimeEnv>>) -> Result<SessionState> {
        let config = config
            .set_str("datafusion.execution.time_zone", &self.timezone)
            // An amount is exact, and so is what it is compared with.
            .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let mut builder = SessionStateBuilder::new().with_config(config).with_default_features();
        if let Some(runtime) = runtime {
            builder = builder.with_runtime_env(runtime);
        }
        let mut state = builder.build();
        for function in self.functions() {
            state.register_udf(function)?;
        }
        Ok(state)
    }

    fn functions(&self) -> [Arc<ScalarUDF>; 3] {
        let function = |names: &[&'static str], value| {
            let signature = Signature::nullary(Volatility::Immutable);
            let aliases = names[1..].iter().map(|name| (*name).to_owned()).collect();
            Arc::new(ScalarUDF::from(ClockFunction { name: names[0], aliases, value, signature }))
        };
        let day = i32::try_from(self.local_us.div_euclid(DAY_US)).ok();
        [
            function(&["now", "current_timestamp"], ScalarValue::TimestampMicrosecond(Some(self.at_us), Some(Arc::clone(&self.timezone)))),
            function(&["current_date", "today"], ScalarValue::Date32(day)),
            function(&["current_time"], ScalarValue::Time64Nanosecond(Some(self.local_us.rem_euclid(DAY_US) * 1_000))),
        ]
    }
}

/// A function without arguments that gives a part of the run's clock. It takes the place of
/// DataFusion's own, which read the machine's clock, and count in nanoseconds, so that a date in the
/// year 9999, as old systems write for "never", would overflow on comparison.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ClockFunction {
    name: &'static str,
    aliases: Vec<String>,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for ClockFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// A column in the type of [`Clock::presented_type`].
///
/// # Errors
/// Where the column has a type that is not presented in this one.
pub(crate) fn present(column: &ArrayRef, presented: &DataType) -> Result<ArrayRef, ArrowError> {
    Ok(match (column.data_type(), presented) {
        (stored, presented) if stored == presented => Arc::clone(column),
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(TimeUnit::Microsecond, timezone)) => {
            let moments: &TimestampMicrosecondArray = column.as_primitive::<TimestampMicrosecondType>();
            Arc::new(moments.clone().with_timezone_opt(timezone.clone()))
        }
        (DataType::FixedSizeBinary(size), DataType::Utf8) => {
            let ids = column.as_fixed_size_binary();
            let mut texts = StringBuilder::with_capacity(ids.len(), ids.len() * 2 * *size as usize);
            let mut digits = vec![0; 2 * *size as usize];
            for id in ids {
                texts.append_option(id.map(|id| {
                    hex::encode_to_slice(id, &mut digits).expect("two digits for each byte");
                    std::str::from_utf8(&digits).expect("hex digits are text")
                }));
            }
            Arc::new(texts.finish())
        }
        (_, presented) => cast(column, presented)?,
    })
}

/// The hex digits of an id, for views over tables whose ids are bytes.
pub(crate) fn hex_function() -> ScalarUDF {
    ScalarUDF::from(HexFunction { signature: Signature::any(1, Volatility::Immutable) })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HexFunction {
    signature: Signature,
}

impl ScalarUDFImpl for HexFunction {
    fn name(&self) -> &str {
        "id_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ids = args.args.first().map(|ids| ids.to_array(args.number_rows)).transpose()?;
        match ids {
            Some(ids) => Ok(ColumnarValue::Array(present(&ids, &DataType::Utf8)?)),
            None => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
        }
    }
}
