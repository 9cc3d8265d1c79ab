// SPDX-License-Identifier: GPL-2.0

//! Words, strings and signs of a configuration file (spec §9.4).

use crate::diagnostic::Diagnostic;
use crate::source::{SourceId, Span};

/// Most bytes of a quoted string, as in drbd-utils.
pub(crate) const QUOTED_LENGTH_MAX: usize = 255;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word, or a string in double quotes without them and with its escapes resolved.
    Word(String),
    /// `;`
    Semicolon,
    /// `{`
    Open,
    /// `}`
    Close,
    /// The end of the text.
    End,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where it stands.
    pub(crate) span: Span,
}

impl Token {
    /// How messages name it.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Word(text) => format!("'{text}'"),
            Kind::Semicolon => "';'".into(),
            Kind::Open => "'{'".into(),
            Kind::Close => "'}'".into(),
            Kind::End => "the end of the file".into(),
        }
    }
}

/// Splits a text into tokens.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    source: SourceId,
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of `text`.
    pub(crate) fn new(source: SourceId, text: &'a str) -> Self {
        Self {
            source,
            text,
            at: 0,
        }
    }

    /// The next token; at the end again and again [`Kind::End`].
    pub(crate) fn next(&mut self) -> Result<Token, Diagnostic> {
        self.skip_blanks();
        let start = self.at;
        let Some(first) = self.rest().chars().next() else {
            return Ok(self.token(start, Kind::End));
        };
        let kind = match first {
            ';' => Kind::Semicolon,
            '{' => Kind::Open,
            '}' => Kind::Close,
            '"' => return self.quoted(),
            first if first.is_control() => {
                let span = self.span(start, start + first.len_utf8());
                return Err(Diagnostic::new(span, "control character in the file")
                    .help("drbd.conf is a plain text file"));
            }
            _ => {
                let length = self.rest().find(ends_word).unwrap_or(self.rest().len());
                let text = self.rest()[..length].to_owned();
                self.at += length;
                return Ok(self.token(start, Kind::Word(text)));
            }
        };
        self.at += first.len_utf8();
        Ok(self.token(start, kind))
    }

    fn quoted(&mut self) -> Result<Token, Diagnostic> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + offset + 1;
                    if text.len() > QUOTED_LENGTH_MAX {
                        let span = self.span(start, self.at);
                        return Err(Diagnostic::new(span, "quoted string too long")
                            .expected(format!("at most {QUOTED_LENGTH_MAX} bytes")));
                    }
                    return Ok(self.token(start, Kind::Word(text)));
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, c)) if c != '\n' => text.push(c),
                    _ => break,
                },
                c => text.push(c),
            }
        }
        let span = self.span(start, start + 1);
        Err(Diagnostic::new(span, "unterminated quoted string")
            .expected("a closing '\"' on the same line"))
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            let skip = if trimmed.starts_with('#') {
                rest.len() - trimmed.len() + trimmed.find('\n').unwrap_or(trimmed.len())
            } else {
                rest.len() - trimmed.len()
            };
            if skip == 0 {
                return;
            }
            self.at += skip;
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span {
            source: self.source,
            start,
            end,
        }
    }

    fn token(&self, start: usize, kind: Kind) -> Token {
        Token {
            kind,
            span: self.span(start, self.at),
        }
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, ';' | '{' | '}' | '"' | '#')
}
