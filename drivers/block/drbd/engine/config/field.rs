// SPDX-License-Identifier: GPL-2.0

//! The description of one option, its value, and what every set of options can do.
//!
//! The sets are declared with the `settings!` macro, whose table is the only place where an option
//! is described.

use super::attr::{Attribute, Attributes, Writer, FLAG_NESTED};
use super::choice::{
    AfterSplitBrain, Fencing, OnCongestion, OnIoError, OnNoData, Protocol, ReadBalancing,
};
use super::text::{Bytes, Lossy, Text};
use core::fmt;

/// A value of an option in the representation it has in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Yes or no, a u8.
    Flag(bool),
    /// A number, or the number of a choice.
    U32(u32),
    /// A number that may be negative.
    I32(i32),
    /// A large number.
    U64(u64),
    /// A string without its NUL.
    Text(&'a [u8]),
    /// Bytes that are not text.
    Bytes(&'a [u8]),
}

/// What one unit of a number without suffix stands for on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Itself; also bytes.
    One,
    /// KiB: typed without suffix it counts KiB, shown with the suffix `k`.
    Kibi,
    /// Sectors of 512 bytes: shown with the suffix `s`.
    Sectors,
}

impl Scale {
    /// Bytes (or other base units) in one unit of the stored number.
    pub const fn factor(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Kibi => 1024,
            Self::Sectors => 512,
        }
    }

    /// The suffix that drbdsetup shows after the number.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Kibi => "k",
            Self::Sectors => "s",
        }
    }
}

/// The type and the allowed values of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `yes` or `no`.
    Flag,
    /// A number; both bounds are allowed values.
    U32 {
        /// Smallest allowed value.
        min: u32,
        /// Largest allowed value.
        max: u32,
        /// What the number counts.
        scale: Scale,
    },
    /// A number that may be negative; both bounds are allowed values.
    I32 {
        /// Smallest allowed value.
        min: i32,
        /// Largest allowed value.
        max: i32,
    },
    /// A large number; both bounds are allowed values.
    U64 {
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
        /// What the number counts.
        scale: Scale,
    },
    /// A number with a name: the name of number n stands at index n, `None` is not allowed here.
    Choice(&'static [Option<&'static str>]),
    /// A string of up to `max` bytes without NUL.
    Text {
        /// Most bytes, without NUL.
        max: usize,
    },
    /// Up to `max` bytes that are not text.
    Bytes {
        /// Most bytes.
        max: usize,
    },
}

/// One option: a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Number of its attribute inside the set.
    pub number: u16,
    /// Its identifier in the sources.
    pub key: &'static str,
    /// Its name in `drbd.conf` and on drbdsetup's command line, without dashes in front.
    pub name: &'static str,
    /// Type and allowed values.
    pub kind: Kind,
    /// What a number counts, as `show` says it after the value; may be empty.
    pub unit: &'static str,
    /// The request is refused without it.
    pub required: bool,
    /// It cannot be changed while in use.
    pub invariant: bool,
    /// It is shown to privileged users only.
    pub secret: bool,
    /// It is an argument of the command, not an option, or it is of one command only; `show` leaves
    /// it away.
    pub argument: bool,
    /// What it does: the text of the table.
    pub help: &'static str,
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            number: 0,
            key: "",
            name,
            kind,
            unit: "",
            required: false,
            invariant: false,
            secret: false,
            argument: false,
            help: "",
        }
    }

    /// A yes/no option.
    pub const fn flag(name: &'static str) -> Self {
        Self::new(name, Kind::Flag)
    }

    /// A number from `min` to `max`.
    pub const fn u32(name: &'static str, min: u32, max: u32) -> Self {
        Self::new(
            name,
            Kind::U32 {
                min,
                max,
                scale: Scale::One,
            },
        )
    }

    /// A number from `min` to `max` that may be negative.
    pub const fn i32(name: &'static str, min: i32, max: i32) -> Self {
        Self::new(name, Kind::I32 { min, max })
    }

    /// A large number from `min` to `max`.
    pub const fn u64(name: &'static str, min: u64, max: u64) -> Self {
        Self::new(
            name,
            Kind::U64 {
                min,
                max,
                scale: Scale::One,
            },
        )
    }

    /// Any 32-bit number: status, not an option.
    pub const fn any_u32(name: &'static str) -> Self {
        Self::u32(name, 0, u32::MAX)
    }

    /// Any 64-bit number: status, not an option.
    pub const fn any_u64(name: &'static str) -> Self {
        Self::u64(name, 0, u64::MAX)
    }

    /// A policy with a name.
    pub const fn choice(name: &'static str, names: &'static [Option<&'static str>]) -> Self {
        Self::new(name, Kind::Choice(names))
    }

    /// A string of up to `max` bytes.
    pub const fn text(name: &'static str, max: usize) -> Self {
        Self::new(name, Kind::Text { max })
    }

    /// Up to `max` bytes.
    pub const fn bytes(name: &'static str, max: usize) -> Self {
        Self::new(name, Kind::Bytes { max })
    }

    /// Says what the number counts.
    pub const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// The stored number counts KiB.
    pub const fn kibi(self) -> Self {
        self.scaled(Scale::Kibi)
    }

    /// The stored number counts sectors.
    pub const fn sectors(self) -> Self {
        self.scaled(Scale::Sectors)
    }

    /// A request without it is refused.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// It cannot be changed while in use.
    pub const fn invariant(mut self) -> Self {
        self.invariant = true;
        self
    }

    /// It is shown to privileged users only.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// It is not an option that `show` prints.
    pub const fn argument(mut self) -> Self {
        self.argument = true;
        self
    }

    /// Completes the row with what the table says besides.
    pub const fn row(mut self, number: u16, key: &'static str, help: &'static str) -> Self {
        self.number = number;
        self.key = key;
        self.help = help.trim_ascii();
        self
    }

    const fn scaled(mut self, to: Scale) -> Self {
        self.kind = match self.kind {
            Kind::U32 { min, max, .. } => Kind::U32 {
                min,
                max,
                scale: to,
            },
            Kind::U64 { min, max, .. } => Kind::U64 {
                min,
                max,
                scale: to,
            },
            other => other,
        };
        self
    }

    /// The nearest allowed value, for options where everybody takes that for what was meant.
    #[must_use]
    pub fn clamped<'a>(&self, value: Value<'a>) -> Value<'a> {
        const CLAMPED: [&str; 3] = ["al-extents", "c-plan-ahead", "resync-rate"];
        match (self.kind, value) {
            (Kind::U32 { min, max, .. }, Value::U32(value)) if CLAMPED.contains(&self.name) => {
                Value::U32(value.max(min).min(max))
            }
            _ => value,
        }
    }

    /// Whether the option may have this value.
    pub fn allows(&self, value: Value<'_>) -> bool {
        match (self.kind, value) {
            (Kind::Flag, Value::Flag(_)) => true,
            (Kind::U32 { min, max, .. }, Value::U32(value)) => (min..=max).contains(&value),
            (Kind::I32 { min, max }, Value::I32(value)) => (min..=max).contains(&value),
            (Kind::U64 { min, max, .. }, Value::U64(value)) => (min..=max).contains(&value),
            (Kind::Choice(_), Value::U32(value)) => self.choice_name(value).is_some(),
            (Kind::Text { max }, Value::Text(value)) => value.len() <= max,
            (Kind::Bytes { max }, Value::Bytes(value)) => value.len() <= max,
            _ => false,
        }
    }

    /// The name of a choice's number.
    pub fn choice_name(&self, number: u32) -> Option<&'static str> {
        let Kind::Choice(names) = self.kind else {
            return None;
        };
        names.get(usize::try_from(number).ok()?).copied().flatten()
    }

    /// The number of a choice's name.
    pub fn choice_number(&self, name: &str) -> Option<u32> {
        let Kind::Choice(names) = self.kind else {
            return None;
        };
        let index = names
            .iter()
            .position(|candidate| *candidate == Some(name))?;
        u32::try_from(index).ok()
    }

    /// The value of this option that an attribute of its number carries, if it is well formed.
    pub fn decode<'a>(&self, attribute: &Attribute<'a>) -> Option<Value<'a>> {
        match self.kind {
            Kind::Flag => Some(Value::Flag(attribute.as_u8()? != 0)),
            Kind::U32 { .. } | Kind::Choice(_) => Some(Value::U32(attribute.as_u32()?)),
            Kind::I32 { .. } => Some(Value::I32(attribute.as_i32()?)),
            Kind::U64 { .. } => Some(Value::U64(attribute.as_u64()?)),
            Kind::Text { .. } => Some(Value::Text(attribute.as_text()?)),
            Kind::Bytes { .. } => Some(Value::Bytes(attribute.payload)),
        }
    }
}

/// Which options of a set a message carried, by attribute number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present(u64);

impl Present {
    /// Whether the attribute with this number was there.
    pub fn has(self, number: u16) -> bool {
        self.0 & bit(number) != 0
    }

    fn insert(&mut self, number: u16) {
        self.0 |= bit(number);
    }
}

fn bit(number: u16) -> u64 {
    1u64.checked_shl(u32::from(number)).unwrap_or(0)
}

/// Why a set of options was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The option at fault.
    pub field: &'static Field,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The attribute is too short, or a string without end.
    Malformed,
    /// The value is not allowed.
    NotAllowed,
    /// A required option is missing.
    Missing,
    /// The option cannot be changed while in use.
    Invariant,
}

impl fmt::Display for Refusal {
    /// The texts up to the colon are those of the C driver, which scripts may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.field.name;
        match (self.reason, self.field.kind) {
            (Reason::Missing, _) => write!(f, "required attribute missing: {name}"),
            (Reason::Invariant, _) => write!(f, "can not change invariant setting: {name}"),
            (Reason::Malformed, _) => write!(f, "invalid attribute value: {name} is malformed"),
            (Reason::NotAllowed, kind) => {
                write!(f, "invalid attribute value: {name} must be {kind}")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("yes or no"),
            Self::U32 { min, max, .. } => write!(f, "from {min} to {max}"),
            Self::I32 { min, max } => write!(f, "from {min} to {max}"),
            Self::U64 { min, max, .. } => write!(f, "from {min} to {max}"),
            Self::Choice(names) => {
                f.write_str("one of")?;
                for name in names.iter().flatten() {
                    write!(f, " {name}")?;
                }
                Ok(())
            }
            Self::Text { max } => write!(f, "a string of at most {max} bytes"),
            Self::Bytes { max } => write!(f, "at most {max} bytes"),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(true) => f.write_str("yes"),
            Self::Flag(false) => f.write_str("no"),
            Self::U32(value) => fmt::Display::fmt(value, f),
            Self::I32(value) => fmt::Display::fmt(value, f),
            Self::U64(value) => fmt::Display::fmt(value, f),
            Self::Text(value) => fmt::Display::fmt(&Lossy(value), f),
            Self::Bytes(value) => fmt::Debug::fmt(value, f),
        }
    }
}

/// Whether secrets are written or left blank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Written: the reader is privileged.
    Show,
    /// Written as empty strings.
    Blank,
}

/// What a field of a settings struct can do; implemented for the types that tables use.
pub trait Stored: Clone {
    /// The value as messages carry it.
    fn value(&self) -> Value<'_>;

    /// Takes over a value; nothing changes if it has another type or does not fit.
    fn store(&mut self, value: Value<'_>) -> Result<(), Reason>;
}

macro_rules! stored_number {
    ($($type:ty => $variant:ident),+) => {
        $(impl Stored for $type {
            fn value(&self) -> Value<'_> {
                Value::$variant(*self)
            }

            fn store(&mut self, value: Value<'_>) -> Result<(), Reason> {
                let Value::$variant(value) = value else {
                    return Err(Reason::Malformed);
                };
                *self = value;
                Ok(())
            }
        })+
    };
}

stored_number!(bool => Flag, u32 => U32, i32 => I32, u64 => U64);

macro_rules! stored_choice {
    ($($type:ty),+) => {
        $(impl Stored for $type {
            fn value(&self) -> Value<'_> {
                Value::U32(self.number())
            }

            fn store(&mut self, value: Value<'_>) -> Result<(), Reason> {
                let Value::U32(number) = value else {
                    return Err(Reason::Malformed);
                };
                *self = Self::from_number(number).ok_or(Reason::NotAllowed)?;
                Ok(())
            }
        })+
    };
}

stored_choice!(
    AfterSplitBrain,
    Fencing,
    OnCongestion,
    OnIoError,
    OnNoData,
    Protocol,
    ReadBalancing
);

macro_rules! stored_bytes {
    ($($type:ident => $variant:ident),+) => {
        $(impl<const N: usize> Stored for $type<N> {
            fn value(&self) -> Value<'_> {
                Value::$variant(self.as_bytes())
            }

            fn store(&mut self, value: Value<'_>) -> Result<(), Reason> {
                let Value::$variant(content) = value else {
                    return Err(Reason::Malformed);
                };
                self.set(content).map_err(|_| Reason::NotAllowed)
            }
        })+
    };
}

stored_bytes!(Text => Text, Bytes => Bytes);

/// A set of options: one nested attribute of a message. Declared by a table, see `settings!`.
///
/// Some sets are larger than what belongs on a kernel stack; nothing here moves one by value.
pub trait Settings: Sized + 'static {
    /// Number of the nested attribute that carries the set.
    const ATTRIBUTE: u16;
    /// Every option with its default. Keep it in a `static` or on the heap.
    const DEFAULT: Self;
    /// The table, in the order of attribute numbers.
    const FIELDS: &'static [Field];

    /// The value of the option with this attribute number.
    fn value(&self, number: u16) -> Option<Value<'_>>;

    /// Takes over a value without asking whether the table allows it; prefer [`Settings::set`].
    fn store(&mut self, number: u16, value: Value<'_>) -> Result<(), Reason>;

    /// Takes over the value that `from` has for the option.
    fn copy_field(&mut self, from: &Self, number: u16);

    /// The row of the option with this attribute number.
    fn field(number: u16) -> Option<&'static Field> {
        Self::FIELDS.iter().find(|field| field.number == number)
    }

    /// The row of the option with this name in `drbd.conf`.
    fn field_named(name: &str) -> Option<&'static Field> {
        Self::FIELDS.iter().find(|field| field.name == name)
    }

    /// Sets one option if the table allows the value.
    fn set(&mut self, field: &'static Field, value: Value<'_>) -> Result<(), Refusal> {
        let refuse = |reason| Refusal { field, reason };
        if !field.allows(value) {
            return Err(refuse(Reason::NotAllowed));
        }
        self.store(field.number, value).map_err(refuse)
    }

    /// Sets the options that a message carries and says which these were; unknown attributes are
    /// skipped. After an error some options may have been set.
    fn update(&mut self, attributes: Attributes<'_>) -> Result<Present, Refusal> {
        let mut present = Present::default();
        for attribute in attributes {
            let Some(field) = Self::field(attribute.number) else {
                continue;
            };
            let Some(value) = field.decode(&attribute) else {
                return Err(Refusal {
                    field,
                    reason: Reason::Malformed,
                });
            };
            self.set(field, field.clamped(value))?;
            present.insert(field.number);
        }
        Ok(present)
    }

    /// Refuses a message that lacks a required option.
    fn require(present: Present) -> Result<(), Refusal> {
        let mut fields = Self::FIELDS.iter().filter(|field| field.required);
        match fields.find(|field| !present.has(field.number)) {
            Some(field) => Err(Refusal {
                field,
                reason: Reason::Missing,
            }),
            None => Ok(()),
        }
    }

    /// Refuses a message that wants to change what cannot be changed while in use.
    fn refuse_invariants(present: Present) -> Result<(), Refusal> {
        let mut fields = Self::FIELDS.iter().filter(|field| field.invariant);
        match fields.find(|field| present.has(field.number)) {
            Some(field) => Err(Refusal {
                field,
                reason: Reason::Invariant,
            }),
            None => Ok(()),
        }
    }

    /// Takes over every option of `from`.
    fn copy_from(&mut self, from: &Self) {
        for field in Self::FIELDS {
            self.copy_field(from, field.number);
        }
    }

    /// Sets everything that can be changed while in use back to its default.
    fn reset_changeable(&mut self) {
        let defaults = &Self::DEFAULT;
        for field in Self::FIELDS.iter().filter(|field| !field.invariant) {
            self.copy_field(defaults, field.number);
        }
    }

    /// Writes the set as one nested attribute with all its options.
    fn encode(&self, writer: &mut Writer<'_>, secrets: Secrets) {
        let nest = writer.begin(Self::ATTRIBUTE, FLAG_NESTED);
        for field in Self::FIELDS {
            match self.value(field.number) {
                Some(Value::Text(_)) if field.secret && secrets == Secrets::Blank => {
                    writer.put_text(field.number, b"");
                }
                Some(value) => writer.put_value(field.number, value),
                None => {}
            }
        }
        writer.end(nest);
    }

    /// Writes the options with these numbers, in this order, without the attribute around them.
    fn encode_only(&self, writer: &mut Writer<'_>, numbers: &[u16]) {
        for &number in numbers {
            if let Some(value) = self.value(number) {
                writer.put_value(number, value);
            }
        }
    }
}

/// Declares a set of options by its table:
///
/// ```text
/// settings! {
///     /// What the set is.
///     #[derive(Clone, Debug)]
///     Name(attribute number) {
///         /// Help text, which is the field's documentation as well.
///         1 field: Type = default, Field::u32("name", min, max).unit("seconds");
///     }
/// }
/// ```
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $name:ident($attribute:expr) {
            $(
                $(#[doc = $help:literal])+
                $number:literal $field:ident: $type:ty = $default:expr, $about:expr;
            )+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl $crate::config::field::Settings for $name {
            const ATTRIBUTE: u16 = $attribute;
            const DEFAULT: Self = Self { $($field: $default,)+ };
            const FIELDS: &'static [$crate::config::field::Field] = &[
                $($about.row($number, stringify!($field), concat!($($help),+)),)+
            ];

            fn value(&self, number: u16) -> Option<$crate::config::field::Value<'_>> {
                match number {
                    $($number => Some($crate::config::field::Stored::value(&self.$field)),)+
                    _ => None,
                }
            }

            fn store(
                &mut self,
                number: u16,
                value: $crate::config::field::Value<'_>,
            ) -> Result<(), $crate::config::field::Reason> {
                match number {
                    $($number => $crate::config::field::Stored::store(&mut self.$field, value),)+
                    _ => Ok(()),
                }
            }

            fn copy_field(&mut self, from: &Self, number: u16) {
                match number {
                    $($number => self.$field.clone_from(&from.$field),)+
                    _ => {}
                }
            }
        }
    };
}

pub(crate) use settings;
