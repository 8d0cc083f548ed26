//! Copies cells into Arrow columns of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

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
    /// The columns at these places of the rows, as `Utf8`.
    pub fn columns(&self, places: &[usize]) -> Vec<ArrayRef> {
        places.iter().map(|&place| Arc::new(self.column(place)) as ArrayRef).collect()
    }

    fn column(&self, place: usize) -> StringArray {
        let text = self.text.as_bytes();
        let rows = self.cells.len() / self.width;
        let cells = || self.cells.iter().skip(place).step_by(self.width);
        let mut values = Vec::with_capacity(cells().map(|cell| cell.len()).sum());
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut valid = Vec::new();
        offsets.push(0);
        for (row, cell) in cells().enumerate() {
            let start = values.len();
            if cell.has_escapes() {
                cell.append_to(text, self.quote, &mut values);
            } else {
                values.extend_from_slice(cell.raw(text));
            }
            if values.len() == start || self.is_null(&values[start..]) {
                values.truncate(start);
                if valid.is_empty() {
                    valid = vec![true; rows];
                }
                valid[row] = false;
            }
            // A chunk's text is far below 2 GiB.
            offsets.push(values.len() as i32);
        }
        let nulls = (!valid.is_empty()).then(|| NullBuffer::from(valid));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        StringArray::try_new(offsets, Buffer::from_vec(values), nulls).expect("UTF-8 that is cut at ASCII bytes is UTF-8")
    }

    fn is_null(&self, value: &[u8]) -> bool {
        self.nulls.iter().any(|null| null.as_bytes() == value)
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
