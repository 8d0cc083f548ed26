//! Delimited text: CSV, TSV and their kin.
//!
//! Bytes pass through four rooms: [`encoding`] makes UTF-8 of them, [`scan`] finds rows and cells,
//! [`columns`] copies cells into Arrow columns, and [`reader`] does this for one file, a chunk of
//! whole lines at a time, so that memory does not grow with the file. [`layout`] looks at a file's
//! beginning first: its encoding, its line ends and its header.

pub mod columns;
pub mod encoding;
pub mod layout;
pub mod reader;
pub mod scan;

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::Field;
use reunion_sdk::{Call, PluginError};

use self::layout::Layout;
use self::reader::FileReader;
use crate::config::Config;
use crate::listing::{Entry, read_error};
use crate::table::{Place, Projection, Rows, Table, text_field};

/// A text that was looked at.
struct Text {
    file: File,
    name: String,
    config: Arc<Config>,
    layout: Layout,
    fields: Vec<Field>,
    chunk_bytes: usize,
}

/// Looks at the beginning of a text, of which `chunk_bytes` will be read at once. `None`: there is nothing in it.
///
/// # Errors
/// As [`layout::find`].
pub fn open(
    call: &Call,
    mut file: File,
    entry: &Entry,
    config: &Arc<Config>,
    chunk_bytes: usize,
) -> Result<Option<Box<dyn Table>>, PluginError> {
    let layout = layout::find(call, &mut file, entry, config)?;
    Ok(layout.map(|layout| {
        let fields = layout.names.iter().map(|name| text_field(name)).collect();
        Box::new(Text { file, name: entry.name.clone(), config: Arc::clone(config), layout, fields, chunk_bytes }) as Box<dyn Table>
    }))
}

impl Table for Text {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn start(&self) -> Place {
        Place { bytes: self.layout.offset, row: self.layout.line }
    }

    fn rows(self: Box<Self>, projection: Projection, from: Place) -> Result<Box<dyn Rows>, PluginError> {
        let Self { file, name, config, layout, chunk_bytes, .. } = *self;
        tracing::debug!(file = name, encoding = layout.encoding.name(), line = from.row, "reading");
        let failed = |error| read_error(&name, &error);
        let reader = FileReader::new(file, name.clone(), config, (layout, projection), from, chunk_bytes).map_err(failed)?;
        Ok(Box::new(reader))
    }
}
