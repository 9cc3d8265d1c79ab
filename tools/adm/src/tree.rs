// SPDX-License-Identifier: GPL-2.0

//! The shape of a configuration file: statements that end with `;` and sections in braces.
//!
//! The shape knows no keywords. That keeps reading total and simple, and what a keyword means is
//! the business of [`crate::reader`]. The answer of `drbdsetup show` has the same shape.

use crate::diagnostic::Diagnostic;
use crate::source::{SourceId, Span};
use crate::token::{Kind, Lexer, Token};

/// Deepest nesting of sections; the grammar needs five.
const DEPTH_MAX: usize = 16;

/// A word and its place.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// Its text, without quotes.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) span: Span,
}

/// A statement: `head arguments… ;` or `head arguments… { body }`.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// The keyword.
    pub(crate) head: Word,
    /// What follows on the way to `;` or `{`.
    pub(crate) arguments: Vec<Word>,
    /// The section's content; `None` for a statement that ends with `;`.
    pub(crate) body: Option<Vec<Statement>>,
    /// Place of the `;` or `{`.
    pub(crate) end: Span,
}

/// Reads the statements of a text.
pub(crate) fn parse(source: SourceId, text: &str) -> Result<Vec<Statement>, Diagnostic> {
    let mut parser = Parser {
        lexer: Lexer::new(source, text),
    };
    let (statements, end) = parser.statements(0)?;
    match end.kind {
        Kind::End => Ok(statements),
        _ => Err(Diagnostic::new(end.span, "'}' without a section")
            .expected("'resource', 'common', 'global', 'include', 'skip' or the end of the file")),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
}

impl Parser<'_> {
    /// Statements up to and including the token that is not the beginning of one.
    fn statements(&mut self, depth: usize) -> Result<(Vec<Statement>, Token), Diagnostic> {
        let mut statements = Vec::new();
        loop {
            let token = self.lexer.next()?;
            match token.kind {
                Kind::Word(text) => {
                    let head = Word {
                        text,
                        span: token.span,
                    };
                    statements.push(self.statement(head, depth)?);
                }
                // Stray semicolons do no harm, and drbd-utils lets them pass behind sections.
                Kind::Semicolon if !statements.is_empty() => {}
                Kind::Semicolon | Kind::Open => {
                    return Err(Diagnostic::new(
                        token.span,
                        format!("{} without a keyword", token.describe()),
                    )
                    .expected("a keyword"));
                }
                Kind::Close | Kind::End => return Ok((statements, token)),
            }
        }
    }

    fn statement(&mut self, head: Word, depth: usize) -> Result<Statement, Diagnostic> {
        let mut arguments: Vec<Word> = Vec::new();
        loop {
            let token = self.lexer.next()?;
            let last = arguments.last().unwrap_or(&head);
            match token.kind {
                Kind::Word(text) => arguments.push(Word {
                    text,
                    span: token.span,
                }),
                Kind::Semicolon => {
                    return Ok(Statement {
                        head,
                        arguments,
                        body: None,
                        end: token.span,
                    })
                }
                Kind::Open => return self.section(head, arguments, token.span, depth),
                Kind::Close | Kind::End => {
                    return Err(Diagnostic::new(
                        last.span.behind(),
                        format!("missing ';' before {}", token.describe()),
                    )
                    .expected(format!("';' to end '{}'", head.text)));
                }
            }
        }
    }

    fn section(
        &mut self,
        head: Word,
        arguments: Vec<Word>,
        open: Span,
        depth: usize,
    ) -> Result<Statement, Diagnostic> {
        if depth >= DEPTH_MAX {
            return Err(Diagnostic::new(open, "sections are nested too deep"));
        }
        let (body, end) = self.statements(depth + 1)?;
        match end.kind {
            Kind::Close => Ok(Statement {
                head,
                arguments,
                body: Some(body),
                end: open,
            }),
            _ => Err(
                Diagnostic::new(head.span, format!("section '{}' has no end", head.text))
                    .expected("a '}' before the end of the file"),
            ),
        }
    }
}
