//! How rows are named on the command line: `SOURCE/RECORD_ID`, several with commas between them.
//!
//! A source's name has no slash in it, so the first one ends it; whatever follows is the row's id as its source has it,
//! spaces and slashes and all. A comma or a backslash in an id has a backslash before it.

use crate::failure::Failure;

/// A row as it is named: its source, and its id there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowName {
    /// The source's name in the config.
    pub source: String,
    /// The row's id.
    pub record_id: String,
}

/// The rows that texts name, each once, in order.
///
/// # Errors
/// Where a text is no list of rows.
pub fn rows(texts: &[String]) -> Result<Vec<RowName>, Failure> {
    let mut rows = Vec::new();
    for text in texts {
        for name in split(text)? {
            let row = row(&name)?;
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// The parts between commas, with backslashes resolved.
fn split(text: &str) -> Result<Vec<String>, Failure> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => parts.push(String::new()),
            '\\' => match characters.next() {
                Some(escaped @ (',' | '\\')) => last(&mut parts).push(escaped),
                _ => return Err(wrong("a backslash stands before a comma or another backslash, and nothing else")),
            },
            other => last(&mut parts).push(other),
        }
    }
    Ok(parts)
}

fn last(parts: &mut [String]) -> &mut String {
    parts.last_mut().expect("there is one from the beginning")
}

fn row(name: &str) -> Result<RowName, Failure> {
    match name.split_once('/') {
        Some((source, record_id)) if !source.is_empty() && !record_id.is_empty() => {
            Ok(RowName { source: source.to_owned(), record_id: record_id.to_owned() })
        }
        _ => Err(wrong("each is a source's name, a slash, and the row's id")),
    }
}

/// What was typed is not repeated: some sources take the phone for a row's id.
fn wrong(what: &str) -> Failure {
    Failure::usage(format!("--records names no rows: {what}"))
        .help("such as `--records pos/C1,shop/W-7`; a comma in an id is written `\\,`, a backslash `\\\\`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<(String, String)> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        rows(&texts).expect("rows").into_iter().map(|row| (row.source, row.record_id)).collect()
    }

    fn pair(source: &str, id: &str) -> (String, String) {
        (source.to_owned(), id.to_owned())
    }

    #[test]
    fn rows_are_named_by_source_and_id() {
        assert_eq!(names(&["pos/C1,shop/W1", "pos/C2"]), [pair("pos", "C1"), pair("shop", "W1"), pair("pos", "C2")]);
        assert_eq!(names(&["pos/C1,pos/C1"]).len(), 1, "each once");
    }

    #[test]
    fn odd_ids_can_be_named() {
        assert_eq!(names(&["pos/a/b c/"]), [pair("pos", "a/b c/")]);
        assert_eq!(names(&[r"pos/a\,b,pos/c\\d"]), [pair("pos", "a,b"), pair("pos", r"c\d")]);
        assert_eq!(names(&[r"pos/\\\,", "pos/ 7 ", "pos/门店,pos/="]).len(), 4);
    }

    #[test]
    fn what_names_no_row_says_how_rows_are_named() {
        for text in ["C1", "pos/", "/C1", "pos/C1,", "", r"pos/C\1", r"pos/C1\"] {
            let failure = rows(&[text.to_owned()]).expect_err(text);
            assert_eq!(failure.exit(), crate::cli::Exit::Usage);
        }
        insta::assert_snapshot!(rows(&["C1".to_owned()]).expect_err("no source").render(false), @r"
        error: --records names no rows: each is a source's name, a slash, and the row's id
          help: such as `--records pos/C1,shop/W-7`; a comma in an id is written `\,`, a backslash `\\`
        ");
        insta::assert_snapshot!(rows(&[r"pos/C\1".to_owned()]).expect_err("a backslash").render(false), @r"
        error: --records names no rows: a backslash stands before a comma or another backslash, and nothing else
          help: such as `--records pos/C1,shop/W-7`; a comma in an id is written `\,`, a backslash `\\`
        ");
    }
}
