// SPDX-License-Identifier: GPL-2.0

//! Options of sections: which there are, which values they take, and how they are inherited.
//!
//! Names, ranges and policies of what the kernel knows come from the engine's tables. Only what
//! concerns drbdadm alone (startup, handlers, proxy) is listed here.

use crate::source::Span;
use drbd_engine::config::field::{Kind, Scale};
use drbd_engine::config::{DiskConf, Field, NetConf, ResourceOptions, Settings};

/// A section that holds options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// `options`
    Options,
    /// `net`
    Net,
    /// `disk`
    Disk,
    /// `startup`
    Startup,
    /// `handlers`
    Handlers,
    /// `proxy`
    Proxy,
}

impl Section {
    /// All of them, in the order of dumps.
    pub(crate) const ALL: [Self; 6] = [
        Self::Options,
        Self::Net,
        Self::Disk,
        Self::Startup,
        Self::Handlers,
        Self::Proxy,
    ];

    /// Its keyword.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Net => "net",
            Self::Disk => "disk",
            Self::Startup => "startup",
            Self::Handlers => "handlers",
            Self::Proxy => "proxy",
        }
    }

    /// The section with this keyword.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.name() == name)
    }

    /// What the kernel knows of this section.
    pub(crate) const fn fields(self) -> &'static [Field] {
        match self {
            Self::Options => ResourceOptions::FIELDS,
            Self::Net => NetConf::FIELDS,
            Self::Disk => DiskConf::FIELDS,
            Self::Startup | Self::Handlers | Self::Proxy => &[],
        }
    }

    /// The rule for the option with this name.
    pub(crate) fn rule(self, name: &str) -> Option<Rule> {
        let own: &[(&str, Rule)] = match self {
            Self::Net => &[("discard-my-data", Rule::Flag)],
            Self::Disk => &[("use-bmbv", Rule::Flag)],
            Self::Startup => &STARTUP,
            Self::Handlers => &HANDLERS,
            Self::Proxy => &PROXY,
            Self::Options => &[],
        };
        let field = || {
            let mut fields = self.fields().iter().filter(|field| !field.argument);
            fields.find(|field| field.name == name).map(Rule::Field)
        };
        own.iter()
            .find(|(own, _)| *own == name)
            .map(|&(_, rule)| rule)
            .or_else(field)
    }

    /// The names of its options.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let own: &[(&str, Rule)] = match self {
            Self::Startup => &STARTUP,
            Self::Handlers => &HANDLERS,
            Self::Proxy => &PROXY,
            Self::Options | Self::Net | Self::Disk => &[],
        };
        let fields = self.fields().iter().filter(|field| !field.argument);
        fields
            .map(|field| field.name)
            .chain(own.iter().map(|(name, _)| *name))
    }
}

/// Which values an option takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// As the engine's table says.
    Field(&'static Field),
    /// `yes`, `no`, or nothing for `yes`.
    Flag,
    /// Seconds, a number.
    Seconds,
    /// Names of hosts, or `both`.
    Hosts,
    /// A shell command.
    Command,
    /// Whatever it may be: it is for another program.
    Any,
}

const STARTUP: [(&str, Rule); 6] = [
    ("wfc-timeout", Rule::Seconds),
    ("degr-wfc-timeout", Rule::Seconds),
    ("outdated-wfc-timeout", Rule::Seconds),
    ("stacked-timeouts", Rule::Flag),
    ("wait-after-sb", Rule::Flag),
    ("become-primary-on", Rule::Hosts),
];

const HANDLERS: [(&str, Rule); 13] = [
    ("pri-on-incon-degr", Rule::Command),
    ("pri-lost-after-sb", Rule::Command),
    ("pri-lost", Rule::Command),
    ("initial-split-brain", Rule::Command),
    ("split-brain", Rule::Command),
    ("outdate-peer", Rule::Command),
    ("fence-peer", Rule::Command),
    ("unfence-peer", Rule::Command),
    ("local-io-error", Rule::Command),
    ("before-resync-target", Rule::Command),
    ("after-resync-target", Rule::Command),
    ("before-resync-source", Rule::Command),
    ("out-of-sync", Rule::Command),
];

const PROXY: [(&str, Rule); 8] = [
    ("memlimit", Rule::Any),
    ("sndbuf-size", Rule::Any),
    ("rcvbuf-size", Rule::Any),
    ("ping-timeout", Rule::Any),
    ("read-loops", Rule::Any),
    ("compression", Rule::Any),
    ("bwlimit", Rule::Any),
    ("plugin", Rule::Any),
];

/// Largest number of seconds that startup options take.
const SECONDS_MAX: u64 = 1 << 31;

impl Rule {
    /// Whether the option may stand without a value, which means yes.
    pub(crate) const fn is_flag(self) -> bool {
        match self {
            Self::Flag => true,
            Self::Field(field) => matches!(field.kind, Kind::Flag),
            _ => false,
        }
    }

    /// Checks a value; the error says what was expected, and the words that are known.
    pub(crate) fn check(self, value: &str) -> Result<(), Expected> {
        match self {
            Self::Flag if matches!(value, "yes" | "no") => Ok(()),
            Self::Flag => Err(Expected::words("'yes', 'no' or ';'", vec!["yes", "no"])),
            Self::Seconds => match value.parse::<u64>() {
                Ok(seconds) if seconds <= SECONDS_MAX => Ok(()),
                _ => Err(Expected::text("a number of seconds; 0 waits for ever")),
            },
            Self::Field(field) => normal(field, value).map(drop),
            Self::Hosts | Self::Command | Self::Any => Ok(()),
        }
    }
}

/// What a value should have been.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// In words.
    pub(crate) text: String,
    /// The possible values, if they can be listed.
    pub(crate) words: Vec<&'static str>,
}

impl Expected {
    fn text(text: impl Into<String>) -> Self {
        Self::words(text, Vec::new())
    }

    fn words(text: impl Into<String>, words: Vec<&'static str>) -> Self {
        Self {
            text: text.into(),
            words,
        }
    }
}

/// A value in a form that can be compared, whatever units it was written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Normal {
    /// A number in the unit the kernel stores.
    Number(u64),
    /// Anything else.
    Text(String),
}

/// What `value` means for this option.
pub(crate) fn normal(field: &Field, value: &str) -> Result<Normal, Expected> {
    match field.kind {
        Kind::Flag => match value {
            "yes" => Ok(Normal::Number(1)),
            "no" => Ok(Normal::Number(0)),
            _ => Err(Expected::words("'yes', 'no' or ';'", vec!["yes", "no"])),
        },
        Kind::U32 { min, max, scale } => {
            in_range(field, value, u64::from(min), u64::from(max), scale)
        }
        Kind::U64 { min, max, scale } => in_range(field, value, min, max, scale),
        // resync-after names a resource in drbd.conf; who reads the name checks it.
        Kind::I32 { .. } => Ok(Normal::Text(value.into())),
        Kind::Choice(names) => match field.choice_number(value) {
            Some(number) => Ok(Normal::Number(u64::from(number))),
            None if names.contains(&Some("discard-local")) && is_discard_node(value) => {
                Ok(Normal::Text(value.into()))
            }
            None => {
                let words: Vec<_> = names.iter().copied().flatten().collect();
                let list: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
                let text = match list.split_last() {
                    Some((last, rest)) if !rest.is_empty() => {
                        format!("{} or {last}", rest.join(", "))
                    }
                    _ => list.join(""),
                };
                Err(Expected::words(text, words))
            }
        },
        Kind::Text { max } | Kind::Bytes { max } => {
            if value.len() <= max {
                Ok(Normal::Text(value.into()))
            } else {
                Err(Expected::text(format!("at most {max} bytes")))
            }
        }
    }
}

/// `discard-node-HOST` is `discard-local` on that host and `discard-remote` on the other.
pub(crate) fn is_discard_node(value: &str) -> bool {
    value
        .strip_prefix("discard-node-")
        .is_some_and(|host| !host.is_empty())
}

fn in_range(
    field: &Field,
    value: &str,
    min: u64,
    max: u64,
    scale: Scale,
) -> Result<Normal, Expected> {
    match number(value, scale) {
        Some(number) if (min..=max).contains(&number) => Ok(Normal::Number(number)),
        _ => {
            let (suffix, unit) = (scale.suffix(), field.unit);
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(", {unit}")
            };
            let text = format!("a number from {min}{suffix} to {max}{suffix}{unit}");
            Err(Expected::text(text))
        }
    }
}

/// A number in the option's own unit; one with a suffix counts bytes.
fn number(text: &str, scale: Scale) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let bytes_each: u64 = match text.get(digits.len()..)? {
        "" => return Some(count),
        "s" | "S" => 512,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ => return None,
    };
    Some(count.checked_mul(bytes_each)?.div_ceil(scale.factor()))
}

/// One option as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Its name.
    pub(crate) name: String,
    /// Its value as written; `yes` where a flag stood alone.
    pub(crate) value: String,
    /// Place of the name.
    pub(crate) span: Span,
    /// Whether it came from a `syncer` section of DRBD 8.3.
    pub(crate) from_syncer: bool,
}

/// The options of a section, in the order in which they are passed on.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptionList {
    settings: Vec<Setting>,
}

impl OptionList {
    /// The options.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// The option with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == name)
    }

    /// Its value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(|setting| setting.value.as_str())
    }

    /// Sets an option; returns the setting it replaces.
    pub(crate) fn set(&mut self, setting: Setting) -> Option<Setting> {
        let mut settings = self.settings.iter_mut();
        match settings.find(|known| known.name == setting.name) {
            Some(known) => Some(std::mem::replace(known, setting)),
            None => {
                self.settings.push(setting);
                None
            }
        }
    }

    /// Takes over what is not set here.
    ///
    /// Every inherited option goes to the front, so they come in reverse. This is the order in
    /// which drbdadm 8.4 has always shown them and passed them on.
    pub(crate) fn inherit(&mut self, from: &Self) {
        for setting in &from.settings {
            if self.get(&setting.name).is_none() {
                self.settings.insert(0, setting.clone());
            }
        }
    }

    /// DRBD 8.3 resyncs at a fixed rate, which is what `c-plan-ahead 0` means in 8.4: a rate that
    /// came from a `syncer` section brings it along, unless the admin said otherwise.
    pub(crate) fn fix_syncer_rate(&mut self) {
        let mut settings = self.settings.iter();
        let rate = settings.position(|one| one.name == "resync-rate" && one.from_syncer);
        if let (Some(index), None) = (rate, self.get("c-plan-ahead")) {
            let mut fixed = self.settings[index].clone();
            fixed.name = "c-plan-ahead".into();
            fixed.value = "0".into();
            self.settings.insert(index + 1, fixed);
        }
    }

    /// The options as drbdsetup takes them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.settings
            .iter()
            .map(|setting| format!("--{}={}", setting.name, setting.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(section: Section, name: &str) -> &'static Field {
        match section.rule(name) {
            Some(Rule::Field(field)) => field,
            _ => panic!("{name} is no field"),
        }
    }

    #[test]
    fn numbers_with_and_without_suffix_mean_the_same() {
        let rate = field(Section::Disk, "resync-rate");
        for text in ["51200", "51200k", "50M", "102400s"] {
            assert_eq!(
                normal(rate, text).unwrap(),
                Normal::Number(51_200),
                "{text}"
            );
        }
        let size = field(Section::Disk, "size");
        assert_eq!(normal(size, "1G").unwrap(), Normal::Number(2 << 20));
        assert_eq!(normal(size, "2048").unwrap(), Normal::Number(2048));
    }

    #[test]
    fn what_is_not_a_number_in_range_is_refused_with_the_range() {
        let timeout = field(Section::Net, "timeout");
        for text in [
            "0",
            "601",
            "-1",
            "3x",
            "",
            "1M",
            "99999999999999999999",
            "k",
        ] {
            let expected = normal(timeout, text).unwrap_err();
            assert_eq!(
                expected.text, "a number from 1 to 600, 1/10 seconds",
                "{text}"
            );
        }
    }

    #[test]
    fn an_own_option_hides_the_inherited_one() {
        let setting = |name: &str, value: &str| Setting {
            name: name.into(),
            value: value.into(),
            span: Span::default(),
            from_syncer: false,
        };
        let (mut common, mut own) = (OptionList::default(), OptionList::default());
        common.set(setting("a", "1"));
        common.set(setting("b", "1"));
        common.set(setting("c", "1"));
        own.set(setting("b", "2"));
        own.inherit(&common);
        assert_eq!(own.arguments(), ["--c=1", "--a=1", "--b=2"]);
    }
}
