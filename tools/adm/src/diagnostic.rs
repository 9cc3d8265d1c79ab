// SPDX-License-Identifier: GPL-2.0

//! What is wrong with a configuration: where, what was expected, and what may have been meant.

use crate::source::{Sources, Span};

/// One mistake, or one doubt.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostic {
    span: Span,
    message: String,
    label: String,
    help: Vec<String>,
    related: Option<Box<(Span, String)>>,
}

impl Diagnostic {
    /// Something is wrong at `span`.
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            label: String::new(),
            help: Vec::new(),
            related: None,
        }
    }

    /// Says behind the caret what was expected there.
    pub(crate) fn expected(mut self, what: impl AsRef<str>) -> Self {
        self.label = format!("expected {}", what.as_ref());
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Names the known word that is nearest to `word`, if one is near.
    pub(crate) fn did_you_mean<'w>(
        self,
        word: &str,
        known: impl IntoIterator<Item = &'w str>,
    ) -> Self {
        match nearest(word, known) {
            Some(known) => self.help(format!("did you mean '{known}'?")),
            None => self,
        }
    }

    /// Points to another place that has to do with it.
    pub(crate) fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related = Some(Box::new((span, text.into())));
        self
    }

    /// The message for the admin; `severity` is "error" or "warning".
    pub(crate) fn render(&self, sources: &Sources, severity: &str) -> String {
        let mut text = format!(
            "{}: {severity}: {}\n{}",
            place(sources, self.span),
            self.message,
            sources.excerpt(self.span)
        );
        if !self.label.is_empty() {
            text.push(' ');
            text.push_str(&self.label);
        }
        text.push('\n');
        for help in &self.help {
            text.push_str("  = help: ");
            text.push_str(help);
            text.push('\n');
        }
        if let Some((span, note)) = self.related.as_deref() {
            text.push_str(&format!("  = note: {}: {note}\n", place(sources, *span)));
        }
        text
    }
}

fn place(sources: &Sources, span: Span) -> String {
    let position = sources.position(span);
    format!(
        "{}:{}:{}",
        sources.path(span.source).display(),
        position.line,
        position.column
    )
}

/// The known word that `word` is most likely a misspelling of.
pub(crate) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // A third of the letters may be wrong; more would be guessing.
    let limit = match word.chars().count() {
        0 | 1 => return None,
        letters => (letters / 3).max(1),
    };
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_what_is_meant() {
        let mut sources = Sources::default();
        let source = sources.add("a.conf", "x;\n\tönly bad;\n".into());
        let span = Span {
            source,
            start: 10,
            end: 13,
        };
        let text = Diagnostic::new(span, "wrong")
            .expected("'good'")
            .render(&sources, "error");
        assert_eq!(
            text,
            "a.conf:2:7: error: wrong\n   |\n 2 | \tönly bad;\n   | \t     ^^^ expected 'good'\n"
        );
    }

    #[test]
    fn the_nearest_word_is_named_only_if_it_is_near() {
        let known = ["timeout", "ping-timeout", "ko-count"];
        assert_eq!(nearest("timeuot", known), Some("timeout"));
        assert_eq!(nearest("protocol", known), None);
    }
}
