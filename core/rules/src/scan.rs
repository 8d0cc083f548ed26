//! A first look at SQL text: where its words stand, and mistakes that are plain before any grammar.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};

/// Bytes of one rule or query.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Words and operators of one rule or query, values and commas aside, so that a list of stores may be
/// long. It bounds how deep an expression nests, and with it the stack that planning takes.
pub(crate) const WORDS_MAX: usize = 1_000;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
    /// Bytes of the text: begin and length.
    pub(crate) span: Option<(usize, usize)>,
    pub(crate) unknown_column: Option<String>,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    pub(crate) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    pub(crate) fn suggest_if_none(mut self, suggestion: &str) -> Self {
        self.suggestion.get_or_insert_with(|| suggestion.to_owned());
        self
    }

    /// The same place with another message.
    pub(crate) fn say(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    pub(crate) fn at(mut self, span: Option<(usize, usize)>) -> Self {
        self.span = self.span.or(span);
        self
    }
}

/// The words and values of a text, in order.
pub(crate) struct Scan {
    pieces: Vec<Piece>,
}

struct Piece {
    text: String,
    /// The quote around it; `None` for plain words and numbers.
    quote: Option<char>,
    span: (usize, usize),
}

impl Scan {
    /// # Errors
    /// Where the text is empty, too long, or no sequence of SQL's words.
    pub(crate) fn of(text: &str, what: &str) -> Result<Self, Complaint> {
        if text.trim().is_empty() {
            return Err(Complaint::new(format!("the {what} is empty")));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(Complaint::new(format!("the {what} has {} bytes, and the limit is {TEXT_BYTES_MAX}", text.len())));
        }
        full_width(text)?;
        let tokens =
            Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|error| unterminated(text, error.location))?;
        let structural = |token: &&TokenWithSpan| {
            !matches!(token.token, Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_))
        };
        let words = tokens.iter().filter(structural).count();
        if words > WORDS_MAX {
            return Err(Complaint::new(format!("the {what} has {words} words and operators, and the limit is {WORDS_MAX}")));
        }
        if let Some(token) = tokens.iter().find(|token| token.token == Token::Overlap) {
            let begin = offset(text, token.span.start);
            return Err(Complaint::new("`&&` is not SQL").suggest("write and").at(Some((begin, 2))));
        }
        let comment = |token: &&TokenWithSpan| {
            matches!(token.token, Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)))
        };
        if tokens.iter().all(|token| matches!(token.token, Token::Whitespace(_))) && tokens.iter().any(|token| comment(&token)) {
            return Err(Complaint::new(format!("the {what} is only a comment")));
        }
        let mut cursor = Cursor { text, line: 1, column: 1, at: 0 };
        let pieces = tokens.into_iter().filter_map(|token| {
            let begin = cursor.advance(token.span.start);
            let span = (begin, cursor.advance(token.span.end) - begin);
            match token.token {
                Token::Word(word) => Some(Piece { text: word.value, quote: word.quote_style, span }),
                Token::Number(text, _) => Some(Piece { text, quote: None, span }),
                Token::SingleQuotedString(text) => Some(Piece { text, quote: Some('\''), span }),
                Token::Placeholder(text) => Some(Piece { text, quote: None, span }),
                _ => None,
            }
        });
        Ok(Self { pieces: pieces.collect() })
    }

    /// Where a name or value first stands.
    pub(crate) fn find(&self, name: &str) -> Option<(usize, usize)> {
        let exact = self.pieces.iter().find(|piece| piece.text == name);
        exact.or_else(|| self.pieces.iter().find(|piece| piece.text.eq_ignore_ascii_case(name))).map(|piece| piece.span)
    }

    /// Where a keyword stands as a plain word.
    pub(crate) fn keyword(&self, keyword: &str) -> Option<(usize, usize)> {
        self.pieces.iter().find(|piece| piece.quote.is_none() && piece.text.eq_ignore_ascii_case(keyword)).map(|piece| piece.span)
    }

    /// The word as it was written, where it stands in double quotes.
    pub(crate) fn is_double_quoted(&self, name: &str) -> bool {
        self.pieces.iter().any(|piece| piece.quote == Some('"') && piece.text == name)
    }

    /// The word as it was written, where SQL folds it to `name`.
    pub(crate) fn as_written(&self, name: &str) -> Option<&str> {
        let same = |piece: &&Piece| piece.quote.is_none() && piece.text != name && piece.text.eq_ignore_ascii_case(name);
        self.pieces.iter().find(same).map(|piece| piece.text.as_str())
    }
}

/// The byte at which a line and column of the parser lie: both count from 1, columns in characters.
pub(crate) fn offset(text: &str, location: Location) -> usize {
    Cursor { text, line: 1, column: 1, at: 0 }.advance(location)
}

/// Walks through a text from place to place, so that finding all its words costs one pass.
struct Cursor<'a> {
    text: &'a str,
    line: u64,
    column: u64,
    at: usize,
}

impl Cursor<'_> {
    /// The byte of a place that does not lie before the last one.
    fn advance(&mut self, to: Location) -> usize {
        while (self.line, self.column) < (to.line, to.column)
            && let Some(char) = self.text[self.at..].chars().next()
        {
            self.at += char.len_utf8();
            (self.line, self.column) = if char == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.at
    }
}

/// Input methods write full-width punctuation, which looks right and is not.
fn full_width(text: &str) -> Result<(), Complaint> {
    let mut open = None;
    for (at, char) in text.char_indices() {
        match (open, char) {
            (None, '\'' | '"') => open = Some(char),
            (Some(quote), _) if quote == char => open = None,
            (None, _) => {
                let plain = match char {
                    '‘' | '’' | '＇' | '“' | '”' | '＂' => '\'',
                    '（' => '(',
                    '）' => ')',
                    '，' | '、' => ',',
                    '＝' => '=',
                    '＞' => '>',
                    '＜' => '<',
                    '％' => '%',
                    '＋' => '+',
                    '－' => '-',
                    '！' => '!',
                    '；' => ';',
                    _ => continue,
                };
                let complaint = Complaint::new(format!("`{char}` is a full-width character, which SQL does not know"));
                return Err(complaint.suggest(format!("write {plain}")).at(Some((at, char.len_utf8()))));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unterminated(text: &str, location: Location) -> Complaint {
    // The place where the parser gave up, or the quote that was left open.
    let mut open: Option<(char, usize)> = None;
    for (at, char) in text.char_indices() {
        match open {
            None if matches!(char, '\'' | '"') => open = Some((char, at)),
            Some((quote, _)) if quote == char => open = None,
            _ => {}
        }
    }
    match open {
        Some((quote, at)) => Complaint::new(format!("a text begins with {quote} and does not end"))
            .suggest(format!("close it with another {quote}"))
            .at(Some((at, 1))),
        None => {
            let at = offset(text, location);
            let found = text[at..].chars().next();
            let message = found.map_or("the text ends too early".to_owned(), |char| format!("`{char}` cannot be read"));
            Complaint::new(message).at(Some((at, found.map_or(0, char::len_utf8))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_stand() {
        let text = "name = '张' and\n  \"Level\" = 'A' or Store is null";
        let scan = Scan::of(text, "rule").unwrap_or_else(|complaint| panic!("{complaint:?}"));
        let at = |name| scan.find(name).map(|(begin, length)| &text[begin..begin + length]);
        assert_eq!(at("张"), Some("'张'"));
        assert_eq!(at("Level"), Some("\"Level\""));
        assert_eq!(at("store"), Some("Store"));
        assert_eq!((at("none"), scan.as_written("store")), (None, Some("Store")));
        assert!(scan.is_double_quoted("Level") && scan.keyword("level").is_none());
    }

    #[test]
    fn plain_mistakes_are_named_before_any_grammar() {
        let message = |text: &str| Scan::of(text, "rule").err().map(|complaint| (complaint.message, complaint.suggestion, complaint.span));
        insta::assert_debug_snapshot!(
            ["", " \n", "-- nothing", "store = 'S1", "store = “S1”", "（store is null）", "store = '（'"].map(message),
            @r#"
        [
            Some(
                (
                    "the rule is empty",
                    None,
                    None,
                ),
            ),
            Some(
                (
                    "the rule is empty",
                    None,
                    None,
                ),
            ),
            Some(
                (
                    "the rule is only a comment",
                    None,
                    None,
                ),
            ),
            Some(
                (
                    "a text begins with ' and does not end",
                    Some(
                        "close it with another '",
                    ),
                    Some(
                        (
                            8,
                            1,
                        ),
                    ),
                ),
            ),
            Some(
                (
                    "`“` is a full-width character, which SQL does not know",
                    Some(
                        "write '",
                    ),
                    Some(
                        (
                            8,
                            3,
                        ),
                    ),
                ),
            ),
            Some(
                (
                    "`（` is a full-width character, which SQL does not know",
                    Some(
                        "write (",
                    ),
                    Some(
                        (
                            0,
                            3,
                        ),
                    ),
                ),
            ),
            None,
        ]
        "#
        );
        assert!(message(&"a or ".repeat(2000)).is_some_and(|(message, ..)| message.contains("the limit is 1000")));
        assert!(message(&format!("store in ({}'x')", "'x', ".repeat(5000))).is_none());
    }
}
