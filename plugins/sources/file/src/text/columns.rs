//! Copies cells into Arrow columns of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use reunion_sdk::text_array;

use super::scan::Cell;

/// The cells of one chunk's rows, `width` to a row, and the text that they lie in.
pub struct Rows<'t> {
    /// The text.
    pub text: &'t str,
    /// Row after row.
    pub cells: &'t [Cell],
    /// Cells of a row.
    pub width: usize,
    /// The quote whose doubling is undone.
    pub quote: Option<u8>,
    /// Texts that stand for null. The empty one always does.
    pub nulls: &'t [String],
}

impl Rows<'_> {
    /// The columns at these places of the rows, as `Utf8`. All are made together, row after row: in the order
    /// in which the text and its cells lie in memory.
    pub fn columns(&self, places: &[usize]) -> Vec<ArrayRef> {
        let rows = || self.cells.chunks_exact(self.width);
        let mut bytes = vec![0; self.width];
        for row in rows() {
            bytes.iter_mut().zip(row).for_each(|(bytes, cell)| *bytes += cell.len());
        }
        let mut columns: Vec<_> = places.iter().map(|place| Column::with_capacity(rows().len(), bytes[*place])).collect();
        for row in rows() {
            columns.iter_mut().zip(places).for_each(|(column, place)| column.push(self, row[*place]));
        }
        columns.into_iter().map(|column| Arc::new(column.finish()) as ArrayRef).collect()
    }

    fn is_null(&self, value: &[u8]) -> bool {
        self.nulls.iter().any(|null| null.as_bytes() == value)
    }
}

/// A column that is being made.
struct Column {
    values: Vec<u8>,
    /// Where each value begins, and the end.
    offsets: Vec<i32>,
    /// The rows that are null.
    nulls: Vec<usize>,
}

impl Column {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { values: Vec::with_capacity(bytes), offsets, nulls: Vec::new() }
    }

    #[inline]
    fn push(&mut self, rows: &Rows<'_>, cell: Cell) {
        let (text, start) = (rows.text.as_bytes(), self.values.len());
        if cell.has_escapes() {
            cell.append_to(text, rows.quote, &mut self.values);
        } else {
            self.values.extend_from_slice(cell.raw(text));
        }
        if self.values.len() == start || rows.is_null(&self.values[start..]) {
            self.values.truncate(start);
            self.nulls.push(self.offsets.len() - 1);
        }
        // A chunk's text is far below 2 GiB.
        self.offsets.push(self.values.len() as i32);
    }

    fn finish(self) -> StringArray {
        let Self { values, offsets, nulls } = self;
        let rows = offsets.len() - 1;
        let nulls = (!nulls.is_empty()).then(|| {
            let mut valid = BooleanBufferBuilder::new(rows);
            valid.append_n(rows, true);
            nulls.into_iter().for_each(|row| valid.set_bit(row, false));
            NullBuffer::new(valid.finish())
        });
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        text_array(offsets, Buffer::from_vec(values), nulls).expect("UTF-8 that is cut at ASCII bytes is UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::scan::{Dialect, Scanned, Scanner, find_marks};

    #[test]
    fn cells_become_columns_and_empty_ones_null() {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), line_end: b'\n' };
        let text = "张,\"a\"\"b\"\nNULL,\"\"\n三 ,\"\"\"\"\n";
        let (mut marks, mut cells) = (Vec::new(), Vec::new());
        find_marks(text.as_bytes(), dialect, &mut marks);
        let mut scanner = Scanner::new(text.as_bytes(), &marks, dialect, 100, true, 1);
        while matches!(scanner.next_row(&mut cells), Scanned::Row(_)) {}
        let rows = Rows { text, cells: &cells, width: 2, quote: dialect.quote, nulls: &["NULL".into()] };
        let columns = rows.columns(&[1, 0]);
        assert_eq!(*columns[0], StringArray::from(vec![Some("a\"b"), None, Some("\"")]));
        assert_eq!(*columns[1], StringArray::from(vec![Some("张"), None, Some("三 ")]));
    }
}
