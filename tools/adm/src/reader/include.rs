// SPDX-License-Identifier: GPL-2.0

//! `include "pattern";`: files that match, in alphabetical order.

use super::{argument, Outcome, Reader};
use crate::diagnostic::Diagnostic;
use crate::tree::{self, Statement};
use std::path::{Path, PathBuf};

/// Deepest nesting of included files.
const INCLUDE_DEPTH_MAX: usize = 10;
/// Largest file that is read, in bytes.
const FILE_SIZE_MAX: u64 = 16 << 20;

impl Reader<'_> {
    /// Reads the files of an `include` and hands each statement to `take`.
    ///
    /// A pattern may match nothing; a plain name must exist. Relative names are relative to the
    /// file they stand in.
    pub(super) fn include(
        &mut self,
        statement: &Statement,
        mut take: impl FnMut(&mut Self, &Statement) -> Outcome,
    ) -> Outcome {
        let word = argument(statement, "a file name or a pattern")?;
        if self.open_files.len() > INCLUDE_DEPTH_MAX {
            return Err(
                Diagnostic::new(word.span, "files include each other too deep")
                    .help("a file may not include itself"),
            );
        }
        let here = self.sources.path(word.span.source);
        let pattern = here.parent().unwrap_or(Path::new("")).join(&word.text);
        for path in matching(&pattern).map_err(|text| Diagnostic::new(word.span, text))? {
            let text = read_text(&path).map_err(|text| Diagnostic::new(word.span, text))?;
            self.open_files.push(path.clone());
            let source = self.sources.add(path, text);
            for statement in tree::parse(source, self.sources.text(source))? {
                take(self, &statement)?;
            }
            self.open_files.pop();
        }
        Ok(())
    }
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let text = pattern.to_str().unwrap_or_default();
    if !text.contains(['*', '?', '[']) {
        return Ok(vec![pattern.to_owned()]);
    }
    let paths = glob::glob(text).map_err(|error| format!("bad pattern '{text}': {}", error.msg))?;
    // Locks and copies of editors are none of the configuration.
    let is_hidden = |path: &Path| {
        let name = path.file_name().map(|name| name.as_encoded_bytes());
        name.is_some_and(|name| name.starts_with(b"."))
    };
    let takes_hidden = is_hidden(pattern);
    paths
        .filter(|path| takes_hidden || !path.as_ref().is_ok_and(|path| is_hidden(path)))
        .map(|path| path.map_err(|error| format!("cannot look for '{text}': {}", error.error())))
        .collect()
}

/// The content of a configuration file.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let fail = |error: std::io::Error| format!("cannot read '{shown}': {error}");
    let metadata = std::fs::metadata(path).map_err(fail)?;
    if metadata.is_dir() {
        return Err(format!("cannot read '{shown}': it is a directory"));
    }
    if metadata.len() > FILE_SIZE_MAX {
        return Err(format!("'{shown}' is too large for a configuration file"));
    }
    let bytes = std::fs::read(path).map_err(fail)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_editors_are_not_included() {
        let directory = std::env::temp_dir().join(format!("drbd-include-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["b.res", "a.res", ".a.res", ".#b.res", "b.res~"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let paths = matching(&directory.join(pattern)).unwrap();
            let names = paths.iter().map(|path| path.file_name().unwrap());
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names("*.res"), ["a.res", "b.res"]);
        assert_eq!(names(".*.res"), [".#b.res", ".a.res"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
