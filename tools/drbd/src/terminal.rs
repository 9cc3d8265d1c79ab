// SPDX-License-Identifier: GPL-2.0

//! Questions to the admin.

use std::io::{self, BufRead, IsTerminal, Write};

/// Asks a question that only the word `yes` answers with yes.
///
/// With `force` the answer is yes. Where nobody sits at the terminal the answer is no.
pub fn confirm(question: &str, force: bool) -> bool {
    eprintln!("\n{question}");
    if force {
        eprintln!("*** confirmation forced via --force option ***");
        return true;
    }
    if !io::stdin().is_terminal() {
        eprintln!("stdin not a TTY, not waiting for confirmation");
        return false;
    }
    eprint!("[need to type 'yes' to confirm] ");
    // What cannot be shown has not been asked, and the answer read below is no.
    let shown = io::stderr().flush().is_ok();
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).is_ok();
    eprintln!();
    shown && read && answer.trim() == "yes"
}
