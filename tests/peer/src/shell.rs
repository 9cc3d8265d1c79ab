// SPDX-License-Identifier: GPL-2.0

//! Commands for a node, a line each; every one is answered with `ok …` or `failed …`.

use crate::node::{Event, Node, PATIENCE};
use std::io::BufRead;
use std::time::Duration;

/// Runs a node until its shell ends.
pub(crate) fn run(mut node: Node) {
    let events = node.events();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if events.send(Event::Line(line)).is_err() {
                return;
            }
        }
        // Nobody listens any more.
        let _ = events.send(Event::End);
    });
    println!("ok ready");
    loop {
        node.step(Duration::from_millis(50));
        while let Some(event) = node.lines.pop_front() {
            let Event::Line(line) = event else {
                node.save();
                return;
            };
            match command(&mut node, &line) {
                Ok(text) => println!("ok {text}"),
                Err(why) => println!("failed {why}"),
            }
        }
    }
}

fn command(node: &mut Node, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let done = |result: Result<(), String>| result.map(|()| String::new());
    match words[..] {
        ["connect"] => {
            node.wanted = true;
            Ok(String::new())
        }
        ["disconnect"] => done(node.disconnect()),
        ["consent-late", ms] => {
            node.consents_late = Some(Duration::from_millis(number(ms)?));
            Ok(String::new())
        }
        ["state"] => Ok(node.status()),
        ["wait", pattern] => {
            let has = |node: &Node| node.status().contains(pattern);
            let found = node.run_until(has, PATIENCE);
            found
                .then(|| node.status())
                .ok_or_else(|| format!("never `{pattern}`: {}", node.status()))
        }
        ["primary"] => done(node.promote(false)),
        ["primary", "force"] => done(node.promote(true)),
        ["secondary"] => done(node.demote()),
        ["write", word, at, kib] => done(node.fill(word, number(at)?, number(kib)?)),
        ["holds", word, at, kib] => done(node.holds(word, number(at)?, number(kib)?)),
        _ => Err(format!("no such command: {line}")),
    }
}
