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
