// SPDX-License-Identifier: GPL-2.0

//! What happened in a run: the last lines, for whoever has to understand a failure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;

/// Lines that are kept.
const LINES_MAX: usize = 400;

/// The last lines of a run.
#[derive(Default)]
pub struct Story {
    lines: RefCell<VecDeque<String>>,
    /// Whether lines are also printed at once.
    aloud: bool,
    /// Whether lines are kept at all: a run over many seeds keeps none, and a failing seed is run
    /// again.
    kept: bool,
}

impl Story {
    /// An empty story.
    pub fn new(aloud: bool, kept: bool) -> Self {
        Self {
            aloud,
            kept,
            ..Self::default()
        }
    }

    /// Adds a line.
    pub fn tell(&self, now_ns: u64, line: impl FnOnce() -> String) {
        if !self.aloud && !self.kept {
            return;
        }
        let line = format!("{:>12.6} {}", now_ns as f64 / 1e9, line());
        if self.aloud {
            // Whoever reads only the beginning is right to stop.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        let mut lines = self.lines.borrow_mut();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last lines, oldest first.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines.borrow();
        let skip = lines.len().saturating_sub(count);
        lines.iter().skip(skip).cloned().collect()
    }
}
