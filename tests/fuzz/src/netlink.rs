// SPDX-License-Identifier: GPL-2.0

//! A message of the netlink family: header, object, and every set of options as commands read it.

use drbd_engine::config::attr::{Attributes, Writer};
use drbd_engine::config::{
    Context, DiskConf, NetConf, ResourceOptions, Settings, UserHeader, Value,
};

pub(crate) fn run(bytes: &[u8]) {
    let Some((_, rest)) = UserHeader::split(bytes) else {
        return;
    };
    let attributes = Attributes::new(rest);
    let mut length = 0;
    for attribute in attributes {
        length += attribute.raw.len();
        assert!(attribute.payload.len() < attribute.raw.len());
        let _ = (attribute.as_u8(), attribute.as_u32(), attribute.as_u64());
        let _ = attribute.as_text();
    }
    assert!(length <= rest.len());
    if let Ok(context) = Context::find(attributes) {
        let mut buffer = [0; 2048];
        let mut writer = Writer::new(&mut buffer);
        context.encode(&mut writer);
        if let Ok(written) = writer.finish() {
            assert_eq!(Context::find(Attributes::new(written)), Ok(context));
        }
    }
    options::<NetConf>(attributes);
    options::<DiskConf>(attributes);
    options::<ResourceOptions>(attributes);
}

/// What a message sets is allowed, and is what is told of it again.
fn options<S: Settings>(attributes: Attributes<'_>) {
    let Some(nested) = attributes.find(S::ATTRIBUTE) else {
        return;
    };
    let mut settings = S::DEFAULT;
    let Ok(present) = settings.update(nested.nested()) else {
        return;
    };
    let _ = S::require(present);
    for field in S::FIELDS {
        if let Some(value) = settings.value(field.number) {
            assert!(
                !present.has(field.number) || field.allows(value),
                "{}",
                field.name
            );
            tell(field.number, value);
        }
    }
}

fn tell(number: u16, value: Value<'_>) {
    let mut buffer = [0; 512];
    let mut writer = Writer::new(&mut buffer);
    writer.put_value(number, value);
    let written = writer.finish().expect("there is room");
    assert!(Attributes::new(written).find(number).is_some());
}
