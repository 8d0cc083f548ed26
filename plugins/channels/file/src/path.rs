//! The path of a work list: a template whose variables are filled with values from data, which
//! can never lead out of the folder that the template names.

use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// Bytes of one value in a path. Three of them, a run and a dispatch fit into one file name.
const VALUE_BYTES_MAX: usize = 60;
/// Bytes of one name; the file system's limit is 255, and the temporary name is longer.
const NAME_BYTES_MAX: usize = 240;
/// An ordinal takes a dash and at most ten digits.
const ORDINAL_BYTES_MAX: usize = 11;

/// What a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    Campaign,
    Store,
    Staff,
    Date,
    Run,
    Dispatch,
}

impl Variable {
    pub const ALL: [Self; 6] = [Self::Campaign, Self::Store, Self::Staff, Self::Date, Self::Run, Self::Dispatch];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Campaign => "campaign",
            Self::Store => "store",
            Self::Staff => "staff",
            Self::Date => "date",
            Self::Run => "run",
            Self::Dispatch => "dispatch",
        }
    }

    /// Whether it is a column of tasks, so that its value is the same for all tasks of a dispatch only
    /// if they are grouped by it.
    pub const fn is_column(self) -> bool {
        matches!(self, Self::Campaign | Self::Store | Self::Staff)
    }
}

/// The values of one dispatch.
#[derive(Debug, Clone, Copy, Default)]
pub struct PathValues<'a> {
    pub campaign: &'a str,
    pub store: &'a str,
    pub staff: &'a str,
    pub date: &'a str,
    pub run: &'a str,
    pub dispatch: &'a str,
    /// 1 for the run's first dispatch of this group.
    pub ordinal: u32,
}

impl PathValues<'_> {
    fn of(&self, variable: Variable) -> &str {
        match variable {
            Variable::Campaign => self.campaign,
            Variable::Store => self.store,
            Variable::Staff => self.staff,
            Variable::Date => self.date,
            Variable::Run => self.run,
            Variable::Dispatch => self.dispatch,
        }
    }
}

/// Why a path is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the path must be absolute")]
    Relative,
    #[error("the path must end with the name of a file")]
    NoFile,
    #[error("the path must not contain . or .. as a folder")]
    Dots,
    #[error("a brace in the path is not closed")]
    Open,
    #[error("a closing brace in the path closes nothing")]
    Close,
    #[error("there is no variable {{{0}}}; there are {{campaign}} {{store}} {{staff}} {{date}} {{run}} {{dispatch}}")]
    Unknown(String),
    #[error("the part {0:?} of the path can grow beyond {NAME_BYTES_MAX} bytes; use fewer variables or a shorter text in it")]
    Long(String),
    #[error("the path holds a zero byte")]
    Zero,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// The path of work lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    /// The folders before the first variable.
    base: PathBuf,
    /// The names after them: folders, and last the file.
    names: Vec<Vec<Piece>>,
    /// The end of the file's name, before which the ordinal stands: its dot and what follows.
    extension: String,
}

impl PathTemplate {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains('\0') {
            return Err(TemplateError::Zero);
        }
        let Some(rest) = text.strip_prefix('/') else { return Err(TemplateError::Relative) };
        let mut base = PathBuf::from("/");
        let mut names: Vec<Vec<Piece>> = Vec::new();
        let parts: Vec<&str> = rest.split('/').collect();
        let file = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            match part {
                "" if at == file => return Err(TemplateError::NoFile),
                "" => continue,
                "." | ".." => return Err(TemplateError::Dots),
                _ => {}
            }
            let pieces = pieces(part)?;
            match pieces.as_slice() {
                [Piece::Text(folder)] if names.is_empty() && at < file => base.push(folder),
                _ => names.push(pieces),
            }
            if names.last().is_some_and(|name| bytes_max(name) > NAME_BYTES_MAX) {
                return Err(TemplateError::Long(part.to_owned()));
            }
        }
        let extension = names.last_mut().map(split_extension).unwrap_or_default();
        Ok(Self { base, names, extension })
    }

    /// The folders before the first variable.
    pub fn base(&self) -> &std::path::Path {
        &self.base
    }

    /// Whether it names this variable.
    pub fn uses(&self, variable: Variable) -> bool {
        self.names.iter().flatten().any(|piece| *piece == Piece::Variable(variable))
    }

    /// The path of one dispatch. A later dispatch of a group has its ordinal before the extension,
    /// unless the dispatch's own id is in the path.
    pub fn render(&self, values: &PathValues<'_>) -> PathBuf {
        self.fill(values, |variable| escape(values.of(variable)))
    }

    /// The path of one dispatch for an error's text: without the values that come from data.
    pub fn describe(&self, values: &PathValues<'_>) -> PathBuf {
        let value = |variable: Variable| match variable.is_column() {
            true => format!("{{{}}}", variable.name()),
            false => escape(values.of(variable)),
        };
        self.fill(values, value)
    }

    fn fill(&self, values: &PathValues<'_>, value: impl Fn(Variable) -> String) -> PathBuf {
        let mut path = self.base.clone();
        for (at, name) in self.names.iter().enumerate() {
            let mut text = String::new();
            for piece in name {
                match piece {
                    Piece::Text(literal) => text.push_str(literal),
                    Piece::Variable(variable) => text.push_str(&value(*variable)),
                }
            }
            if at + 1 == self.names.len() {
                if values.ordinal > 1 && !self.uses(Variable::Dispatch) {
                    let _ = write!(text, "-{}", values.ordinal);
                }
                text.push_str(&self.extension);
            }
            path.push(text);
        }
        path
    }
}

fn pieces(part: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = part;
    while !rest.is_empty() {
        let open = rest.find(['{', '}']).unwrap_or(rest.len());
        if open > 0 {
            pieces.push(Piece::Text(rest[..open].to_owned()));
        }
        rest = &rest[open..];
        if rest.starts_with('}') {
            return Err(TemplateError::Close);
        }
        if let Some(inner) = rest.strip_prefix('{') {
            let close = inner.find('}').ok_or(TemplateError::Open)?;
            let name = &inner[..close];
            let variable = Variable::ALL.into_iter().find(|variable| variable.name() == name);
            pieces.push(Piece::Variable(variable.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?));
            rest = &inner[close + 1..];
        }
    }
    Ok(pieces)
}

/// Bytes that a name takes at most.
fn bytes_max(name: &[Piece]) -> usize {
    let bytes = name.iter().map(|piece| match piece {
        Piece::Text(text) => text.len(),
        Piece::Variable(Variable::Date) => 10,
        Piece::Variable(Variable::Run | Variable::Dispatch) => 32,
        Piece::Variable(_) => VALUE_BYTES_MAX,
    });
    bytes.sum::<usize>() + ORDINAL_BYTES_MAX
}

/// Takes the extension off a file's name: from the last dot of its last text. A name that is nothing
/// but one has none.
fn split_extension(name: &mut Vec<Piece>) -> String {
    let first = name.len() == 1;
    let Some(Piece::Text(text)) = name.last_mut() else { return String::new() };
    match text.rfind('.') {
        Some(dot) if dot > 0 || !first => {
            let extension = text.split_off(dot);
            if text.is_empty() {
                name.pop();
            }
            extension
        }
        _ => String::new(),
    }
}

/// A value as a part of a file's name, different for different values: what a file system or a
/// spreadsheet's owner cannot take is written as `%` and two hex digits for each byte; a long value is
/// cut and ends with `~` and a hash of the whole.
pub fn escape(value: &str) -> String {
    if value.is_empty() {
        return "%".to_owned();
    }
    let mut escaped = String::with_capacity(value.len());
    for (at, character) in value.char_indices() {
        let last = at + character.len_utf8() == value.len();
        let edge = (at == 0 && matches!(character, '.' | ' ' | '-')) || (last && matches!(character, '.' | ' '));
        if edge || is_unfit(character) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(escaped, "%{byte:02X}");
            }
        } else {
            escaped.push(character);
        }
    }
    if escaped.len() <= VALUE_BYTES_MAX {
        return escaped;
    }
    let hash = hex::encode(&Sha256::digest(value.as_bytes())[..8]);
    let mut end = VALUE_BYTES_MAX - hash.len() - 1;
    while !escaped.is_char_boundary(end) {
        end -= 1;
    }
    // A percent sign whose digits are cut off would read as another value's.
    while escaped[..end].rfind('%').is_some_and(|percent| percent + 3 > end) {
        end = escaped[..end].rfind('%').unwrap_or(end);
    }
    escaped.truncate(end);
    escaped + "~" + &hash
}

fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' | '~')
        // Line and paragraph separators, and marks that turn the direction of text around.
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    fn render(template: &str, values: &PathValues<'_>) -> String {
        PathTemplate::parse(template).unwrap().render(values).display().to_string()
    }

    const VALUES: PathValues<'_> =
        PathValues { campaign: "warm-add", store: "朝阳/店", staff: "..", date: "2026-03-25", run: "ab12", dispatch: "d1", ordinal: 1 };

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(render("/out/{store}/{date}-{run}.csv", &VALUES), "/out/朝阳%2F店/2026-03-25-ab12.csv");
        assert_eq!(render("/out/{staff}/{campaign}", &VALUES), "/out/%2E%2E/warm-add");
        assert_eq!(PathTemplate::parse("/a/b/x-{run}/{date}.csv").unwrap().base(), std::path::Path::new("/a/b"));
    }

    #[test]
    fn later_dispatches_have_a_number_before_the_extension() {
        let later = PathValues { ordinal: 3, store: "a.b", ..VALUES };
        assert_eq!(render("/out/{date}-{run}.csv", &later), "/out/2026-03-25-ab12-3.csv");
        assert_eq!(render("/out/{store}", &later), "/out/a.b-3");
        assert_eq!(render("/out/{run}.list.csv", &later), "/out/ab12.list-3.csv");
        assert_eq!(render("/out/.hidden", &later), "/out/.hidden-3");
        assert_eq!(render("/out/{dispatch}.csv", &later), "/out/d1.csv");
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let long = format!("/out/{}.csv", "{store}".repeat(5));
        for (text, message) in [
            ("out/{run}.csv", "the path must be absolute"),
            ("/out/{run}/", "the path must end with the name of a file"),
            ("/out/../{run}.csv", "the path must not contain . or .. as a folder"),
            ("/out/{run.csv", "a brace in the path is not closed"),
            ("/out/run}.csv", "a closing brace in the path closes nothing"),
            ("/out/{shop}.csv", "there is no variable {shop}; there are {campaign} {store} {staff} {date} {run} {dispatch}"),
            (
                &long,
                "the part \"{store}{store}{store}{store}{store}.csv\" of the path can grow beyond 240 bytes; use fewer variables or a shorter text in it",
            ),
        ] {
            assert_eq!(PathTemplate::parse(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn awkward_values_become_plain_names() {
        for (value, name) in [
            ("", "%"),
            (".", "%2E"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("a\\b:c", "a%5Cb%3Ac"),
            ("x\0\n", "x%00%0A"),
            ("100%", "100%25"),
            ("-rf", "%2Drf"),
            ("店 ", "店%20"),
            ("a\u{202e}b", "a%E2%80%AEb"),
        ] {
            assert_eq!(escape(value), name);
        }
        assert_eq!(escape(&"店".repeat(40)).len(), 59);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_value_leads_out_of_the_folder(store in any::<String>(), staff in "[./\\\\%~ \\x00a-c]{0,80}", ordinal in any::<u32>()) {
            let template = PathTemplate::parse("/out/lists/{store}/{staff}-x.csv").unwrap();
            let path = template.render(&PathValues { store: &store, staff: &staff, ordinal, ..VALUES });
            let inner = path.strip_prefix("/out/lists").unwrap();
            let parts: Vec<_> = inner.components().collect();
            prop_assert_eq!(parts.len(), 2);
            for part in parts {
                let Component::Normal(name) = part else { panic!("{part:?}") };
                let name = name.to_str().unwrap();
                prop_assert!(name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\\', '\0']));
            }
        }

        #[test]
        fn different_values_have_different_names(one in "[./%~ a-b店]{0,60}", two in "[./%~ a-b店]{0,60}") {
            prop_assert_eq!(one == two, escape(&one) == escape(&two));
        }
    }
}
