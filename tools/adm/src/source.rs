// SPDX-License-Identifier: GPL-2.0

//! The texts a configuration was read from, and places in them.

use std::fmt;
use std::path::{Path, PathBuf};

/// Index of a text in [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceId(usize);

/// A stretch of a text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// The text.
    pub(crate) source: SourceId,
    /// First byte.
    pub(crate) start: usize,
    /// The byte behind the last.
    pub(crate) end: usize,
}

impl Span {
    /// The place right behind this stretch.
    pub(crate) fn behind(self) -> Self {
        Self {
            start: self.end,
            ..self
        }
    }
}

/// A place as an admin counts: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
}

/// Every text that was read, with its name.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    texts: Vec<(PathBuf, String)>,
}

impl Sources {
    /// Takes over a text.
    pub(crate) fn add(&mut self, path: impl Into<PathBuf>, text: String) -> SourceId {
        self.texts.push((path.into(), text));
        SourceId(self.texts.len() - 1)
    }

    /// Its content.
    pub(crate) fn text(&self, id: SourceId) -> &str {
        self.texts.get(id.0).map_or("", |(_, text)| text)
    }

    /// Its name.
    pub(crate) fn path(&self, id: SourceId) -> &Path {
        self.texts
            .get(id.0)
            .map_or(Path::new("?"), |(path, _)| path.as_path())
    }

    /// Line and column of a stretch's first byte.
    pub(crate) fn position(&self, span: Span) -> Position {
        let before = self.text(span.source).get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// `file:line`, as dumps name the place of a section.
    pub(crate) fn file_and_line(&self, span: Span) -> String {
        let path = self.path(span.source).display();
        format!("{path}:{}", self.position(span).line)
    }

    /// Shows the line a stretch begins in, with carets below it.
    pub(crate) fn excerpt(&self, span: Span) -> Excerpt<'_> {
        let text = self.text(span.source);
        let start = text.get(..span.start).map_or(0, |_| span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let end = span.end.clamp(start, line_end);
        Excerpt {
            number: self.position(span).line,
            before: &text[line_start..start],
            marked: text.get(start..end).unwrap_or_default(),
            after: text.get(end..line_end).unwrap_or_default(),
        }
    }
}

/// A line with a marked part.
#[derive(Debug)]
pub(crate) struct Excerpt<'a> {
    number: usize,
    before: &'a str,
    marked: &'a str,
    after: &'a str,
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, " {margin} |")?;
        writeln!(
            f,
            " {number} | {}{}{}",
            self.before, self.marked, self.after
        )?;
        // Tabs stay tabs, so that the caret stands right whatever a tab's width is.
        let indent: String = self
            .before
            .chars()
            .map(|c| if c == '\t' { c } else { ' ' })
            .collect();
        let carets = "^".repeat(self.marked.chars().count().max(1));
        write!(f, " {margin} | {indent}{carets}")
    }
}
