// SPDX-License-Identifier: GPL-2.0

//! Options of commands, as the engine's tables describe them.

use crate::failure::{Failure, Outcome};
use crate::netlink::request::OwnedValue;
use crate::numbers;
use drbd_engine::config::field::{Kind, Scale};
use drbd_engine::config::{Field, Settings, Value};

/// A set of options: the attribute that carries it, and its rows.
#[derive(Clone, Copy)]
pub struct Table {
    /// Number of the attribute that carries the set.
    pub attribute: u16,
    /// The rows.
    pub fields: &'static [Field],
}

impl Table {
    /// The table of a set.
    pub const fn of<S: Settings>() -> Self {
        Self {
            attribute: S::ATTRIBUTE,
            fields: S::FIELDS,
        }
    }
}

/// Other names of options.
const ALIASES: &[(&str, &str)] = &[
    ("overwrite-data-of-peer", "force"),
    ("o", "force"),
    ("f", "force"),
    ("dry-run", "tentative"),
    ("n", "tentative"),
    ("D", "discard-my-data"),
    ("s", "size"),
];

/// The option of that name among some fields: its whole name, a beginning of it that fits no other,
/// or another name of it.
pub fn find<'a>(fields: &[&'a Field], name: &str) -> Option<&'a Field> {
    let named = |name: &str| fields.iter().copied().find(|field| field.name == name);
    let alias = || {
        let (_, real) = ALIASES.iter().find(|(alias, _)| *alias == name)?;
        named(real)
    };
    let beginning = || {
        let mut fitting = fields
            .iter()
            .copied()
            .filter(|field| field.name.starts_with(name));
        let found = fitting.next()?;
        (name.len() > 1 && fitting.next().is_none()).then_some(found)
    };
    named(name).or_else(alias).or_else(beginning)
}

/// Whether an option needs no value to be given.
pub fn is_switch(field: &Field) -> bool {
    field.kind == Kind::Flag
}

/// Reads the value of an option; a flag without one is meant.
pub fn parse(field: &Field, text: Option<&str>) -> Outcome<OwnedValue> {
    let Some(text) = text else {
        return Ok(OwnedValue::Plain(Value::Flag(true)));
    };
    let invalid = || {
        let text = format!("Option --{}: invalid argument '{text}'", field.name);
        Failure::new(20, format!("{text}, must be {}", expected(field)))
    };
    let value = match field.kind {
        Kind::Flag => match text {
            "yes" | "true" | "on" => Value::Flag(true),
            "no" | "false" | "off" => Value::Flag(false),
            _ => return Err(invalid()),
        },
        Kind::Choice(_) => Value::U32(field.choice_number(text).ok_or_else(invalid)?),
        Kind::U32 { scale, .. } => {
            let number = scaled(text, scale)?;
            Value::U32(u32::try_from(number).map_err(|_| invalid())?)
        }
        Kind::U64 { scale, .. } => Value::U64(scaled(text, scale)?),
        Kind::I32 { .. } => Value::I32(text.parse().map_err(|_| invalid())?),
        Kind::Text { .. } | Kind::Bytes { .. } => {
            let value = Value::Text(text.as_bytes());
            return if field.allows(value) {
                Ok(OwnedValue::Text(text.as_bytes().to_vec()))
            } else {
                Err(invalid())
            };
        }
    };
    if field.allows(value) {
        Ok(OwnedValue::Plain(value))
    } else {
        Err(invalid())
    }
}

/// A number in the unit that is stored, rounded up so that nothing asked for gets lost.
fn scaled(text: &str, scale: Scale) -> Outcome<u64> {
    let factor = scale.factor();
    numbers::parse(text, factor).map(|number| number.div_ceil(factor))
}

/// What an option takes, as usage texts say it.
pub fn expected(field: &Field) -> String {
    match field.kind {
        Kind::Flag => "{yes|no}".to_owned(),
        Kind::U32 { min, max, .. } => format!("({min} ... {max})"),
        Kind::U64 { min, max, .. } => format!("({min} ... {max})"),
        Kind::I32 { min, max } => format!("({min} ... {max})"),
        Kind::Choice(names) => {
            let names: Vec<_> = names.iter().flatten().copied().collect();
            format!("{{{}}}", names.join("|"))
        }
        Kind::Text { .. } | Kind::Bytes { .. } => "<str>".to_owned(),
    }
}

/// A value as `show` prints it.
pub fn shown(field: &Field, value: Value<'_>) -> String {
    match (field.kind, value) {
        (Kind::Choice(_), Value::U32(number)) => match field.choice_name(number) {
            Some(name) => name.to_owned(),
            None => number.to_string(),
        },
        (Kind::U32 { scale, .. } | Kind::U64 { scale, .. }, value) => {
            format!("{value}{}", scale.suffix())
        }
        (_, Value::Text(_)) => format!("\"{value}\""),
        (_, value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drbd_engine::config::{DiskConf, NetConf};

    fn disk(name: &str, text: &str) -> Outcome<OwnedValue> {
        parse(DiskConf::field_named(name).unwrap(), Some(text))
    }

    #[test]
    fn numbers_are_stored_in_the_unit_of_their_option() {
        let plain = |value| Ok(OwnedValue::Plain(value));
        assert_eq!(disk("resync-rate", "50M"), plain(Value::U32(51_200)));
        assert_eq!(disk("resync-rate", "250"), plain(Value::U32(250)));
        assert_eq!(disk("c-fill-target", "1M"), plain(Value::U32(2048)));
        assert_eq!(disk("size", "3s"), plain(Value::U64(3)));
        assert_eq!(disk("resync-after", "-1"), plain(Value::I32(-1)));
    }

    #[test]
    fn values_that_the_table_does_not_allow_are_refused() {
        let wrong = [
            ("resync-rate", "999999999"),
            ("resync-rate", "abc"),
            ("al-extents", "66"),
            ("on-io-error", "bogus"),
            ("md-flushes", "maybe"),
        ];
        for (name, text) in wrong {
            assert_eq!(disk(name, text).unwrap_err().exit(), 20, "{name} {text}");
        }
        let secret = NetConf::field_named("shared-secret").unwrap();
        assert!(parse(secret, Some(&"x".repeat(64))).is_err());
    }

    #[test]
    fn an_option_is_found_by_a_beginning_that_fits_no_other() {
        let fields: Vec<_> = DiskConf::FIELDS.iter().collect();
        assert_eq!(find(&fields, "resync-r").unwrap().name, "resync-rate");
        assert!(find(&fields, "resync").is_none());
        assert!(find(&fields, "bogus").is_none());
    }

    #[test]
    fn values_are_shown_with_their_unit_and_strings_in_quotes() {
        let rate = DiskConf::field_named("resync-rate").unwrap();
        assert_eq!(shown(rate, Value::U32(20_480)), "20480k");
        let alg = NetConf::field_named("cram-hmac-alg").unwrap();
        assert_eq!(shown(alg, Value::Text(b"sha1")), "\"sha1\"");
        let policy = DiskConf::field_named("on-io-error").unwrap();
        assert_eq!(shown(policy, Value::U32(2)), "detach");
    }
}
